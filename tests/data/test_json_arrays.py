import gzip
import json
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.data.data_file import DataFile, text_lines
from deita_train.data.json_arrays import array_rows
from deita_train.errors import UserError

ROWS = [
    {"id": "a", "text": 'quote " backslash \\ umlaut ü emoji 🙂', "n": -1.5e-10},
    {"id": "b", "list": [True, None, [], {}], "text": "\u2028"},
    {},
    {"long": "x" * 200},
]


def file_of(folder, content, suffix=".json"):
    path = folder / f"rows{suffix}"
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    return DataFile("rows.json", suffix, lambda: path.open("rb"), path)


def rows_of(file):
    return [row.row for row in array_rows(file)]


@pytest.fixture(params=[1, 2, 3, 7, 64, 1 << 20])
def block(request, monkeypatch):
    """The bytes that are read at once."""
    monkeypatch.setattr("deita_train.data.data_file._TEXT_BLOCK", request.param)


@pytest.mark.parametrize("form", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_rows_are_those_of_the_whole_text(tmp_path, block, form, suffix):
    text = f"\ufeff \n{json.dumps(ROWS, **form)}\n\n"
    found = list(array_rows(file_of(tmp_path, text, suffix)))
    assert [row.row for row in found] == ROWS
    assert [(row.index, row.where) for row in found] == [(n, f"rows.json, row {n}") for n in range(len(ROWS))]


def test_an_empty_array_has_no_rows(tmp_path, block):
    assert rows_of(file_of(tmp_path, " [ \n ] ")) == []


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1},\n {"b": 2',
        '[{"a": 1}\n {"b": 2}]',
        '[{"a": 1},\n]',
        '[{"a": "\n"}]',
        '[{"a": "\\q"}]',
        '[{"a": "\\u12"}]',
        '[{"a": -}, {"b": 1}, {"c": 1}, {"d": 1}]',
        '[{"a": tru}, {"b": 1}, {"c": 1}, {"d": 1}]',
        '[{"a" 1}, {"b": 1}, {"c": 1}, {"d": 1}]',
        '[{"a": "never closed}, {}]',
        '[{"a": 1}]\n\n  more',
        '[{"a": 1}',
        "[",
    ],
)
def test_a_malformed_array_is_told_with_the_place_that_json_tells(tmp_path, block, text):
    with pytest.raises(json.JSONDecodeError) as true:
        json.loads(text)
    with pytest.raises(UserError) as told:
        rows_of(file_of(tmp_path, text))
    place = str(told.value).partition(":")[2].partition(":")[0]
    assert int(place) == true.value.lineno, (told.value, true.value)
    if "trailing comma" not in true.value.msg:  # newer versions of Python point at the comma
        assert f" at column {true.value.colno};" in str(told.value)


def test_rows_before_a_fault_are_read(tmp_path, block):
    rows = array_rows(file_of(tmp_path, '[{"a": 1}, {"b": 2}, {"c" 3}]'))
    assert [next(rows).row, next(rows).row] == [{"a": 1}, {"b": 2}]
    with pytest.raises(UserError, match="malformed JSON array: Expecting ':' delimiter at column 27"):
        next(rows)


@pytest.mark.parametrize("value", ["12345678901234567890", "null", '"text"', "[1, 2]", "-1.25e3"])
def test_a_row_that_is_no_object_is_told_with_its_line(tmp_path, block, value):
    with pytest.raises(UserError, match=r"rows\.json:3, row 1: a row must be a JSON object") as told:
        rows_of(file_of(tmp_path, f'[{{"a": 1}},\n\n{value}]'))
    assert json.dumps(json.loads(value)) in str(told.value)


def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path, block):
    with pytest.raises(UserError, match=r"rows\.json:2: not UTF-8: invalid start byte"):
        rows_of(file_of(tmp_path, b'[{"a": 1},\n{"b": "\xff"}]'))
    with pytest.raises(UserError, match=r"rows\.json:2: not UTF-8: unexpected end of data"):
        rows_of(file_of(tmp_path, b'[{"a": 1},\n{"b": "\xc3'))


def test_nesting_too_deep_is_told_with_its_line(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(UserError, match=r"rows\.json:2: not readable as JSON"):
        rows_of(file_of(tmp_path, f'[{{"a": 1}},\n{{"b": {deep}}}]'))


def test_a_number_of_many_digits_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("deita_train.data.data_file._TEXT_BLOCK", 6_000)
    digits = "1" * 5_000
    # Cut behind 4,300 digits it looks like a whole number, of which Python reads no more.
    assert rows_of(file_of(tmp_path, f'[{{"p": "{"x" * 900}"}}, {{"a": {digits}.5}}]'))[1] == {"a": float("inf")}
    with pytest.raises(UserError, match=r"rows\.json:1: not readable as JSON: Exceeds the limit"):
        rows_of(file_of(tmp_path, f'[{{"a": {digits}}}]'))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_told_with_the_line_up_to_which_it_was_read(tmp_path, share):
    random = Random(1)
    rows = [{"id": n, "text": "".join(random.choices("abcdefgh", k=300))} for n in range(5_000)]
    text = "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
    whole = file_of(tmp_path, text, ".json.gz").path
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    file = DataFile("rows.json.gz", ".json.gz", lambda: whole.open("rb"), whole)
    with pytest.raises(UserError) as lines:
        list(text_lines(file))
    with pytest.raises(UserError) as array:
        rows_of(file)
    last_read = int(str(lines.value).split(":")[1])
    assert 0 <= last_read - int(str(array.value).split(":")[1]) <= 1, (str(lines.value), str(array.value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5), st.integers(1, 40), st.booleans())
def test_any_rows(tmp_path_factory, rows, block, ascii_only):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deita_train.data.data_file._TEXT_BLOCK", block)
        text = json.dumps(rows, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        try:
            text.decode()
        except UnicodeDecodeError:
            return
        assert rows_of(file_of(tmp_path_factory.mktemp("rows"), text)) == rows


def test_memory_does_not_grow_with_the_array(tmp_path):
    peaks = []
    for number in (2_000, 20_000):
        file = file_of(tmp_path, json.dumps([{"text": "x" * 1000}] * number))
        tracemalloc.start()
        assert sum(1 for _ in array_rows(file)) == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 10_000_000
