import gzip
import json
import math

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_train.data.json_text import json_array, json_lists, json_text
from deita_train.data.outputs import Output
from deita_train.data.sources import iter_rows
from deita_train.data.suffixes import SUFFIXES
from deita_train.data.writing import ROWS_PER_BATCH, write_rows, write_shards
from deita_train.errors import UserError

ROWS = [
    {"id": "a", "messages": [{"role": "user", "content": "naïve\n\u2028東京"}], "score": [1.5, None], "rank": None},
    {"id": "b", "messages": [{"role": "user", "content": '"x"'}], "score": [6.0], "rank": 3},
]
TABLE = datasets.Dataset.from_list(ROWS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(table, name, **options):
    write_rows(table, Output.for_rows(str(name), **{"overwrite": False, **options}))


def read(name):
    return [row.row for row in iter_rows(str(name))]


@pytest.mark.parametrize("suffix", [*SUFFIXES, ""])
def test_what_is_written_is_read_again(tmp_path, suffix):
    write(TABLE, tmp_path / f"rows{suffix}")
    assert read(tmp_path / f"rows{suffix}") == ROWS
    assert names(tmp_path) == [f"rows{suffix}"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, ""])
def test_equal_tables_give_equal_bytes(tmp_path, suffix):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(TABLE, tmp_path / name / f"rows{suffix}")
    write(TABLE, tmp_path / "one" / f"rows{suffix}")  # refused if any byte differed
    if suffix:
        assert (tmp_path / "one" / f"rows{suffix}").read_bytes() == (tmp_path / "two" / f"rows{suffix}").read_bytes()


def test_the_forms_of_json_by_hand(tmp_path):
    table = datasets.Dataset.from_list([{"id": "a", "n": 1}, {"id": "é", "n": None}])
    for suffix in (".jsonl", ".json", ".jsonl.gz"):
        write(table, tmp_path / f"rows{suffix}")
    lines = '{"id": "a", "n": 1}\n{"id": "é", "n": null}\n'
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == lines
    assert gzip.decompress((tmp_path / "rows.jsonl.gz").read_bytes()).decode() == lines
    assert (tmp_path / "rows.json").read_text(
        encoding="utf-8"
    ) == f"[\n{lines.rstrip().replace(chr(10), ',' + chr(10))}\n]\n"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ""])
def test_more_rows_than_a_batch(tmp_path, suffix):
    table = datasets.Dataset.from_dict({"id": [str(number) for number in range(2 * ROWS_PER_BATCH + 1)]})
    write(table, tmp_path / f"rows{suffix}")
    assert [row["id"] for row in read(tmp_path / f"rows{suffix}")] == list(table["id"])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ""])
def test_float32_comes_back_with_its_bits(tmp_path, suffix):
    values = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 3)
    write(datasets.Dataset(pa.table({"id": pa.array(list("abcde")), "embedding": column})), tmp_path / f"rows{suffix}")
    got = np.array([row["embedding"] for row in read(tmp_path / f"rows{suffix}")])
    assert np.array_equal(got.astype(np.float32), values)


MIXED = [{"a": [1, 0.7, None]}, "x", 5, "5", None, [], {"role": "user", "content": "naïve"}]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.zst"])
def test_columns_of_json_are_written_as_their_values(tmp_path, suffix):
    texts = [None if value is None else json_text(value) for value in MIXED]
    lists = json_lists([[text for text in texts if text is not None]] * len(texts))
    ids = [str(number) for number in range(len(texts))]
    table = datasets.Dataset(pa.table({"id": ids, "one": json_array(texts), "many": lists}))
    write(table, tmp_path / f"rows{suffix}")
    found = read(tmp_path / f"rows{suffix}")
    assert [row["one"] for row in found] == MIXED
    assert [row["many"] for row in found] == [[value for value in MIXED if value is not None]] * len(MIXED)


def test_parquet_keeps_the_types(tmp_path):
    write(TABLE, tmp_path / "rows.parquet")
    schema = pq.read_schema(tmp_path / "rows.parquet")
    assert schema.field("rank").type == pa.int64() and schema.names == ["id", "messages", "score", "rank"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_without_json_is_refused_by_its_row(tmp_path, value):
    table = datasets.Dataset.from_list([{"id": "a", "n": 1.0}, {"id": "b", "n": value}])
    with pytest.raises(UserError, match=r"row 'b' holds a number that JSON cannot write .*\.parquet"):
        write(table, tmp_path / "rows.jsonl")
    assert names(tmp_path) == []
    write(table, tmp_path / "rows.parquet")
    assert json.dumps([row["id"] for row in read(tmp_path / "rows.parquet")]) == '["a", "b"]'


def shards(table, folder, shard_bytes):
    """The ids in each file of a table written as shards, by the file's name."""
    files = write_shards(table, folder, shard_bytes)
    assert names(folder) == [file.name for file in files]
    return {file.name: pq.read_table(file)["id"].to_pylist() for file in files}


def test_shards_end_before_the_row_that_would_exceed_their_size(tmp_path):
    # A row takes 8 bytes for its number, an offset of 4 for its text, and the letters: 100, 100, 100, 400 and 12.
    table = datasets.Dataset.from_dict({"id": [1, 2, 3, 4, 5], "text": ["a" * 88, "b" * 88, "c" * 88, "d" * 388, ""]})
    assert shards(table, tmp_path / "all", 10**6) == {"train-00000-of-00001.parquet": [1, 2, 3, 4, 5]}
    assert shards(table, tmp_path / "three", 412) == {
        "train-00000-of-00002.parquet": [1, 2, 3],
        "train-00001-of-00002.parquet": [4, 5],
    }
    assert list(shards(table, tmp_path / "long", 210).values()) == [[1, 2], [3], [4], [5]], "a row is never divided"


def test_a_table_without_rows_is_one_shard_with_its_columns(tmp_path):
    (file,) = write_shards(TABLE.select([]), tmp_path)
    assert file.name == "train-00000-of-00001.parquet"
    assert pq.read_table(file).num_rows == 0 and pq.read_schema(file).names == TABLE.column_names


def test_shards_are_read_batch_by_batch_and_give_equal_bytes(tmp_path, monkeypatch):
    table = datasets.Dataset.from_dict({"id": list(range(3500)), "text": ["x" * 100] * 3500})
    table.save_to_disk(str(tmp_path / "table"))
    table, written = datasets.load_from_disk(str(tmp_path / "table")), []
    whole = pq.ParquetWriter.write_table
    monkeypatch.setattr(
        pq.ParquetWriter, "write_table", lambda self, rows: (written.append(len(rows)), whole(self, rows))[1]
    )
    one, two = (write_shards(table, tmp_path / name, 250_000) for name in ("one", "two"))
    assert max(written) == ROWS_PER_BATCH
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
    found = datasets.load_dataset("parquet", data_files=[str(file) for file in one], cache_dir=str(tmp_path / "cache"))
    assert found["train"][:] == table[:] and found["train"].features == table.features
