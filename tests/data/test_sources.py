import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from deita_train.data.sources import SourceRow, iter_rows
from deita_train.errors import UserError

ROWS = [{"a": 1, "t": "one\u2028two"}, {"a": 2, "t": "élan 🙂"}, {"a": 3, "t": ""}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS, indent=1, ensure_ascii=False).encode()


def compressed(content, name):
    if name.endswith(".gz"):
        return gzip.compress(content)
    return zstandard.ZstdCompressor().compress(content) if name.endswith(".zst") else content


def write(folder, name, content):
    path = folder / name
    path.write_bytes(compressed(content, name))
    return str(path)


def read(dataset, **kwargs):
    return list(iter_rows(dataset, **kwargs))


def error(dataset, **kwargs):
    with pytest.raises(UserError) as caught:
        read(dataset, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("stem", "content", "is_lines"),
    [("pool.jsonl", LINES, True), ("pool.json", LINES, True), ("pool.json", ARRAY, False)],
)
def test_json_files_give_rows_with_positions(tmp_path, stem, content, is_lines, suffix):
    path = write(tmp_path, stem + suffix, content)
    places = [f"{path}:1", f"{path}:2", f"{path}:3"] if is_lines else [f"{path}, row {index}" for index in range(3)]
    expected = [SourceRow(index, where, row) for index, (where, row) in enumerate(zip(places, ROWS, strict=True))]
    assert read(path) == expected


def test_blank_lines_and_byte_order_mark_are_passed_over_and_lines_counted(tmp_path):
    path = write(tmp_path, "pool.jsonl", b'\xef\xbb\xbf\n{"a": 1}\r\n\n  \n{"a": 2}')
    assert [(row.index, row.where, row.row["a"]) for row in read(path)] == [(0, f"{path}:2", 1), (1, f"{path}:5", 2)]
    path = write(tmp_path, "array.json", b'\xef\xbb\xbf \n[ {"a":1} ,\n{"a":2}]\n')
    assert [row.row["a"] for row in read(path)] == [1, 2]


def test_zst_of_two_frames_and_gz_of_two_members_are_read_whole(tmp_path):
    for name in ("two.jsonl.gz", "two.jsonl.zst"):
        path = tmp_path / name
        path.write_bytes(compressed(LINES, name) * 2)
        assert [row.row for row in read(str(path))] == ROWS * 2


def test_parquet_in_several_row_groups(tmp_path):
    path = str(tmp_path / "pool.parquet")
    pq.write_table(pa.table({"n": range(2500), "m": [[{"role": "user"}]] * 2500}), path, row_group_size=700)
    rows = read(path)
    assert [row.row["n"] for row in rows] == list(range(2500))
    assert rows[2499] == SourceRow(2499, f"{path}, row 2499", {"n": 2499, "m": [{"role": "user"}]})


def test_saved_folders(tmp_path):
    one, other = datasets.Dataset.from_list(ROWS), datasets.Dataset.from_list(ROWS[:1])
    single, several, sole = (str(tmp_path / name) for name in ("single", "several", "sole"))
    one.save_to_disk(single)
    datasets.DatasetDict(train=one, test=other).save_to_disk(several)
    datasets.DatasetDict(test=other).save_to_disk(sole)
    assert [row.row for row in read(single)] == ROWS
    assert [row.row for row in read(several, split="test")] == ROWS[:1]
    assert read(sole) == [SourceRow(0, f"{sole}, row 0", ROWS[0])]
    assert "splits train, test" in error(several)
    assert "no split 'dev'; it has train, test" in error(several, split="dev")
    assert "leave it out" in error(single, split="train")


@pytest.mark.parametrize(
    "name", ["missing.jsonl", "./missing", "/no/such/folder", "~/no-such-pool", "missing.json.zst"]
)
def test_a_path_that_is_not_there_is_named_at_once(name):
    with pytest.raises(UserError, match="does not exist") as caught:
        iter_rows(name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b/c", "owner/na me", "owner/"])
def test_neither_path_nor_hub_id(name):
    with pytest.raises(UserError, match=r"does not exist .*A dataset of the Hub is named owner/name"):
        iter_rows(name)


def test_revision_and_split_do_not_apply_to_files(tmp_path):
    path = write(tmp_path, "pool.jsonl", LINES)
    assert "revision 'main'" in error(path, revision="main")
    assert "split 'train'" in error(path, split="train")
    assert ".jsonl.zst" in error(write(tmp_path, "pool.txt", LINES))
    assert "revision 'main'" in error(path, revision="main")
    assert "configuration 'a'" in error(path, config="a")


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("p.jsonl", b'{"a": 1}\n\n{"a": }\n', ":3: ", "Expecting value at column 7"),
        ("p.jsonl", b'{"a": 1}\n[1]\n', ":2: ", "this is list [1]"),
        ("p.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', ":2: ", "UTF-8"),
        ("p.json", b'{"a": 1}\n{"a"', ":2: ", "malformed JSON"),
        ("p.json", b'[\n{"a": 1},\n{"a": x}]', ":3: ", "Expecting value at column 7"),
        ("p.json", b'[\n{"a": 1}\n{"a": 2}]', ":3: ", "Expecting ',' or ']' at column 1"),
        ("p.json", b'[{"a": 1},\n]', ":2: ", "Expecting value at column 1"),
        ("p.json", b'[{"a": 1}\n', ":2: ", "Expecting ',' or ']'"),
        ("p.json", b"[", ":1: ", "Expecting value"),
        ("p.json", b'[{"a": 1}]\n[{"a": 2}]', ":2: ", "Extra data after the array"),
        ("p.json", b'[{"a": 1},\n"text"]', ":2, row 1: ", 'this is str "text"'),
        ("p.json", b'[{"a": 1},\n{"a": "\xff"}]', ":2: ", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_malformed_json_is_located(tmp_path, name, content, where, what, suffix):
    path = write(tmp_path, name + suffix, content)
    message = error(path)
    assert message.startswith(path + where)
    assert what in message


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.jsonl.zst", "p.json.gz", "p.json.zst"])
def test_a_torn_compressed_file_is_an_error_at_every_length(tmp_path, name):
    whole = compressed(ARRAY if ".json." in name else LINES, name)
    path = tmp_path / name
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        message = error(str(path))
        assert "damaged or incomplete" in message
        assert str(path) in message


def test_what_is_not_compressed_under_such_a_name(tmp_path):
    for name in ("p.jsonl.gz", "p.jsonl.zst", "p.json.gz", "p.json.zst"):
        path = tmp_path / name
        path.write_bytes(LINES)
        assert "damaged or incomplete" in error(str(path))


def test_a_torn_parquet_file(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"n": range(100)}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "damaged or incomplete" in error(str(path))
    path.write_bytes(b"")
    assert "damaged or incomplete" in error(str(path))


def test_a_dataset_without_rows(tmp_path):
    names = {
        "a.jsonl": b"",
        "b.jsonl": b"\n \n",
        "c.json": b" ",
        "d.json": b"[ ]",
        "e.jsonl.gz": b"",
        "f.json.zst": b"",
    }
    for name, content in names.items():
        assert "holds no rows" in error(write(tmp_path, name, content))
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "g.parquet")
    assert "holds no rows" in error(str(tmp_path / "g.parquet"))


def test_reading_is_lazy(tmp_path):
    rows = iter_rows(write(tmp_path, "p.json", b'[{"a": 1}, broken'))
    assert next(rows).row == {"a": 1}
    with pytest.raises(UserError):
        next(rows)
