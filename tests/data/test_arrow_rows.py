"""Json columns as datasets decodes them, from every file that can hold them, and Parquet with large nested columns."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Json, LargeList, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.data.arrow_rows import table_rows
from deita_train.data.sources import iter_rows
from deita_train.errors import UserError

JSON = pa.json_()
# What a column of the type Json holds in a row -> what a reader must get.
VALUES = ["hi", 'Blue\nor "red"', "42", 42, None, {"a": 1}, [1, "b", None], "", "null", "é🙂", True, 0.5]


def read(path):
    return [row.row for row in iter_rows(str(path))]


def json_table(features, rows):
    return datasets.Dataset.from_list(rows, features=Features(features))


def test_texts_of_a_json_column_have_no_quotes_wherever_they_are_read(tmp_path):
    table = json_table({"output": Json()}, [{"output": value} for value in ("hi", 'Blue\nor "red"', 17)])
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=table).save_to_disk(tmp_path / "splits")
    table.to_parquet(tmp_path / "pool.parquet")
    pq.write_table(table.data.table, tmp_path / "plain.parquet", store_schema=False)
    for name in ("saved", "splits", "pool.parquet", "plain.parquet"):
        assert read(tmp_path / name) == [{"output": "hi"}, {"output": 'Blue\nor "red"'}, {"output": 17}], name


NESTED = {
    "list of objects": ({"m": List(Json())}, {"m": [{"role": "user", "content": "hi"}, {"content": [{"a": 1}]}]}),
    "a field of objects in a list": (
        {"m": List({"role": Value("string"), "content": Json()})},
        {"m": [{"role": "user", "content": "hi"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}]},
    ),
    "an object": ({"m": {"a": {"b": Json()}, "c": Value("int64")}}, {"m": {"a": {"b": "t"}, "c": 1}}),
    "lists in lists": ({"m": LargeList(List(Json()))}, {"m": [["a", 1], [], [{"b": None}]]}),
    "no JSON": ({"m": List({"a": Value("string")})}, {"m": [{"a": '"quoted"'}]}),
}


@pytest.mark.parametrize("name", NESTED)
def test_json_is_decoded_at_any_depth(tmp_path, name):
    features, row = NESTED[name]
    table = json_table(features, [row, {"m": None}])
    assert table[0] == row, "datasets itself gives this row back"
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "p.parquet")
    for path in ("saved", "p.parquet"):
        assert read(tmp_path / path)[0] == row
        assert read(tmp_path / path)[1] == table[1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(json_values, min_size=1, max_size=4))
def test_rows_are_those_that_datasets_gives(values):
    table = json_table(
        {"x": Json(), "m": List({"y": Json()})}, [{"x": v, "m": [{"y": v}, {"y": None}]} for v in values]
    )
    assert [row.row for row in table_rows(table.data.table, "t")] == list(table)


def test_whole_numbers_beyond_64_bits_are_exact():
    table = pa.table({"n": pa.array([f"{2**70}"], JSON)})
    assert [row.row for row in table_rows(table, "t")] == [{"n": 2**70}]


def test_a_value_that_is_no_json_is_named(tmp_path):
    pq.write_table(pa.table({"a": pa.array(["1", "1"]), "n": pa.array(["1", "{secret"], JSON)}), tmp_path / "p.parquet")
    with pytest.raises(UserError) as caught:
        read(tmp_path / "p.parquet")
    assert str(caught.value).startswith(f"{tmp_path / 'p.parquet'}, row 1: column 'n' is of the type JSON")
    assert "secret" not in str(caught.value)


def test_images_are_left_as_they_are_stored(tmp_path):
    picture = {"bytes": b"no picture", "path": None}
    table = json_table({"image": datasets.Image(), "a": Json()}, [{"image": picture, "a": "x"}])
    table.save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved") == [{"image": picture, "a": "x"}]


def test_rows_that_arrow_cannot_read_at_once_are_read_in_smaller_batches(tmp_path, monkeypatch):
    """Arrow's own limit is 2 GiB of a nested column, so here it is a number of rows."""
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"n": range(2300)}), path, row_group_size=1500)
    read_batches, sizes = pq.ParquetFile.iter_batches, []

    def limited(file, batch_size, row_groups):
        for number, batch in enumerate(read_batches(file, batch_size, row_groups=row_groups)):
            # The second batch of a group is too much at once unless it is small.
            if number == 1 and batch_size > 10:
                raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", limited)
    rows = list(iter_rows(str(path)))
    assert [row.row["n"] for row in rows] == list(range(2300))
    assert [row.index for row in rows] == list(range(2300))
    assert set(sizes) == {1000, 800, 100, 10}


def test_what_arrow_cannot_read_row_by_row_either_is_told(tmp_path, monkeypatch):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"n": range(3)}), path)

    def refuse(file, batch_size, row_groups):
        raise pa.ArrowNotImplementedError("Nested data conversions not implemented")
        yield

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", refuse)
    with pytest.raises(UserError, match="pyarrow cannot read this"):
        read(path)
