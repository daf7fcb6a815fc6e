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
from deita_train.data.writing import ROWS_PER_BATCH, write_rows
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
