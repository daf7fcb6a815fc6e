"""A .json file that is one object: the rows are in it, or it is the only row."""

import json

import pytest
from messages import assistant, user

from deita_train.data.sources import SourceRow, iter_rows
from deita_train.errors import UserError

ROWS = [{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "d"}]
CHAT = [user("q"), assistant("a")]


def rows_of(folder, value, indent):
    path = folder / "p.json"
    path.write_text(json.dumps(value, indent=indent))
    return list(iter_rows(str(path)))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "value",
    [
        {"data": ROWS},
        {"version": "1.1", "any key": ROWS, "languages": ["en"], "empty": [], "meta": {"rows": 2}},
    ],
)
def test_the_rows_in_an_object(tmp_path, value, indent):
    path = tmp_path / "p.json"
    expected = [SourceRow(index, f"{path}, row {index}", row) for index, row in enumerate(ROWS)]
    assert rows_of(tmp_path, value, indent) == expected


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"messages": CHAT, "tools": [{"type": "function"}]},
        {"conversations": [{"from": "human", "value": "q"}], "id": 3},
        {"instruction": "a", "output": "b", "tags": [{"name": "x"}]},
        {"chosen": CHAT, "rejected": CHAT},
        {"question": "a", "answer": "b"},
        {"data": []},
    ],
)
def test_an_object_that_is_the_row(tmp_path, row, indent):
    assert rows_of(tmp_path, row, indent) == [SourceRow(0, f"{tmp_path / 'p.json'}, row 0", row)]


def test_two_lists_of_rows_are_a_question(tmp_path):
    with pytest.raises(UserError, match="several lists of objects, 'train', 'test'; which of them are the rows"):
        rows_of(tmp_path, {"train": ROWS, "test": ROWS}, 1)


def test_several_lines_are_rows_although_the_first_looks_like_a_holder(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"data": ROWS}) + "\n\n" + json.dumps({"data": ROWS[:1]}))
    assert [(row.where, row.row) for row in iter_rows(str(path))] == [
        (f"{path}:1", {"data": ROWS}),
        (f"{path}:3", {"data": ROWS[:1]}),
    ]


def test_a_line_of_a_jsonl_file_is_always_a_row(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"data": ROWS}))
    assert [row.row for row in iter_rows(str(path))] == [{"data": ROWS}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"data": [\n {"a": 1},\n {"a" 2}\n]}', ":3: malformed JSON: Expecting ':' delimiter at column 7"),
        ('{"data": [\n {"a": 1}', ":2: malformed JSON: "),
    ],
)
def test_a_malformed_object_is_located(tmp_path, content, said):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        list(iter_rows(str(path)))
    assert str(caught.value).startswith(f"{path}{said}")


def test_the_column_of_a_line_that_ends_too_early_is_in_that_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    for end in ("\n", "\r\n", ""):
        path.write_bytes(b'{"a": 1}\n{"a": ' + end.encode())
        with pytest.raises(UserError, match=r"rows.jsonl:2: malformed JSON: Expecting value at column 7;"):
            list(iter_rows(str(path)))
