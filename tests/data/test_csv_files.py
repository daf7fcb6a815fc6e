import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.data.csv_files import csv_rows
from deita_train.data.data_file import DataFile
from deita_train.data.sources import SourceRow, iter_rows
from deita_train.errors import UserError


def read(folder, content, name="p.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(row.index, row.where.removeprefix(str(path)), row.row) for row in iter_rows(str(path))]


def error(folder, content, name="p.csv"):
    with pytest.raises(UserError) as caught:
        read(folder, content, name)
    return str(caught.value).removeprefix(str(folder / name))


def test_values_are_text_and_empty_ones_null(tmp_path):
    assert read(tmp_path, "instruction,output\nHi,12\n,NA\n") == [
        (0, ":2", {"instruction": "Hi", "output": "12"}),
        (1, ":3", {"instruction": None, "output": "NA"}),
    ]


def test_quoted_values_hold_line_ends_and_the_place_is_where_a_record_begins(tmp_path):
    content = 'a,b\r\n"one\r\ntwo","say ""hi"", please"\r\n\r\nx,y'
    assert read(tmp_path, content) == [
        (0, ":2", {"a": "one\r\ntwo", "b": 'say "hi", please'}),
        (1, ":5", {"a": "x", "b": "y"}),
    ]


def test_tabs_and_compression(tmp_path):
    rows = [(0, ":2", {"a": "1, 2", "b": '"x\ty"'})]
    assert read(tmp_path, gzip.compress(b'a\tb\n1, 2\t"""x\ty"""\n'), "p.tsv.gz") == rows


def test_an_index_without_a_name_is_called_as_pandas_calls_it(tmp_path):
    assert read(tmp_path, ",a\n0,x\n") == [(0, ":2", {"Unnamed: 0": "0", "a": "x"})]


def test_a_value_longer_than_the_limit_of_the_csv_module(tmp_path):
    text = "x" * 200_000
    assert read(tmp_path, f"a,b\n{text},y\n")[0][2]["a"] == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n1,2,3\n", ":3: 3 values for 2 columns (a, b)"),
        ("a,b\n1\n", ":2: 1 values for 2 columns"),
        ("a,a\n1,2\n", ":1: two columns are named 'a'"),
        ('a,b\n1,2\n"x,y\n3,4\n', ":3: malformed CSV: unexpected end of data"),
        ('a,b\n"x"y,2\n', ":2: malformed CSV: "),
        (b"a,b\n1,\xff\n", ":2: not UTF-8"),
        ("", ": holds no rows"),
        ("a,b\n", ": holds no rows"),
    ],
)
def test_what_is_malformed_is_located(tmp_path, content, said):
    assert error(tmp_path, content).startswith(said)


def test_columns_that_fit_no_format_are_listed(tmp_path):
    from deita_train.data.pool import PoolSource, build_pool

    path = tmp_path / "p.csv"
    path.write_text("title,body\na,b\n")
    with pytest.raises(UserError, match=r"p\.csv:2: the columns 'title', 'body' fit no known format"):
        build_pool([PoolSource.from_dataset(str(path))])


values = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=4))
def test_what_the_csv_module_writes_comes_back(rows):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    content = text.getvalue().encode()
    found = list(csv_rows(DataFile("f", ".csv", lambda: io.BytesIO(content))))
    lines = [2 + sum(1 + "".join(row).count("\n") for row in rows[:number]) for number in range(len(rows))]
    assert found == [
        SourceRow(number, f"f:{line}", {"a": row[0] or None, "b": row[1] or None})
        for number, (line, row) in enumerate(zip(lines, rows, strict=True))
    ]
