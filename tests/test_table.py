import json
from dataclasses import asdict

import pytest

from deita_train.table import Column, Table, escape_markdown, numbers, words


def test_markdown():
    columns = (*words("name"), *numbers("value"), Column("share", note="higher is better"))
    table = Table(columns, (("a|b", "1", "5%"), ("c", "22", "")), "Two rows", "How to read it.")
    assert table.markdown() == (
        "**Two rows**\n\n| name | value | share (higher is better) |\n|---|---:|---:|\n"
        "| a\\|b | 1 | 5% |\n| c | 22 |  |\n\nHow to read it.\n"
    )
    assert Table(words("name"), ()).markdown() == "| name |\n|---|\n"


def test_a_ragged_row_is_refused():
    with pytest.raises(AssertionError, match="ragged rows in 'x'"):
        Table(words("a", "b"), (("1", "2"), ("1",)), "x")


def test_a_table_survives_json():
    table = Table((*words("a"), Column("b", note="lower is better")), (("1", "2"),), "x", "Why.", num_references=1)
    assert Table.from_json(json.loads(json.dumps(asdict(table)))) == table
    assert table.titles == ("a", "b") and [column.numeric for column in table.columns] == [False, True]


def test_text_stays_one_line_of_plain_text():
    assert escape_markdown("a_b\n# *c* <d> [e] `f` ~ \\") == r"a\_b \# \*c\* \<d\> \[e\] \`f\` \~ \\"
