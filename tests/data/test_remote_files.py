"""Rows behind URLs: fsspec's own file system in memory stands for S3 and the Hub."""

import gzip
import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from deita_train.data.remote_files import file_states, remote_files
from deita_train.data.sources import SourceRow, iter_rows
from deita_train.errors import UserError


@pytest.fixture
def put(monkeypatch):
    """Writes a file of the memory's file system; it is empty before and after."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])

    def write(path, content):
        fsspec.filesystem("memory").pipe(path, content)
        return f"memory://{path}"

    return write


def lines(*values):
    return "".join(json.dumps({"a": value}) + "\n" for value in values).encode()


def parquet(*values):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": pa.array(values)}), sink)
    return sink.getvalue().to_pybytes()


def values(url, **options):
    return [row.row["a"] for row in iter_rows(url, **options)]


def error(url, **options):
    with pytest.raises(UserError) as caught:
        list(iter_rows(url, **options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", lines(1, 2, 3)),
        ("p.jsonl.gz", gzip.compress(lines(1, 2, 3), mtime=0)),
        ("p.json", b'[{"a": 1}, {"a": 2}, {"a": 3}]'),
        ("p.parquet", parquet(1, 2, 3)),
    ],
)
def test_every_kind_of_file_is_read(put, name, content):
    url = put(f"/bucket/{name}", content)
    rows = list(iter_rows(url))
    assert [row.row["a"] for row in rows] == [1, 2, 3]
    assert rows[2].where in (f"{url}:3", f"{url}, row 2")
    assert values(url, first_rows=2) == [1, 2]


def test_folders_and_patterns(put):
    put("/b/repo/README.md", b"#")
    first = put("/b/repo/data/train-00000-of-00002.parquet", parquet(1))
    second = put("/b/repo/data/train-00001-of-00002.parquet", parquet(2, 3))
    put("/b/repo/data/test-00000-of-00001.parquet", parquet(9))
    rows = [SourceRow(0, f"{first}, row 0", {"a": 1}), SourceRow(1, f"{second}, row 0", {"a": 2})]
    assert list(iter_rows("memory://b/repo", split="train"))[:2] == rows
    assert values("memory://b/repo/data/train-*.parquet") == [1, 2, 3]
    assert values("memory://b/repo", data_files=["data/*-00001-*.parquet"]) == [2, 3]
    assert "the splits test, train; state one as split" in error("memory://b/repo")
    assert "matches no data file" in error("memory://b/repo/*.jsonl")


def test_what_is_not_there_or_has_no_effect(put):
    url = put("/b/p.jsonl", lines(1))
    assert error("memory://b/q.jsonl") == "memory://b/q.jsonl does not exist. Correct the URL."
    assert "is a file and has no split" in error(url, split="train")
    assert "revision 'main' was given, but only a Hub dataset has one" in error(url, revision="main")
    assert "a data file ends in one of" in error(put("/b/notes.txt", b"x"))
    assert "3 rows are asked for, and it has 1" in error(url, first_rows=3)


def test_a_protocol_that_is_unknown_or_not_installed():
    assert "fsspec cannot read it" in error("nosuch://bucket/p.jsonl")
    fsspec.register_implementation("lacking", "no_such_package.System", errtxt="Install lackingfs")
    assert error("lacking://bucket/p.jsonl") == "lacking://bucket/p.jsonl: Install lackingfs"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (PermissionError("Access Denied"), "permission denied"),
        (ConnectionError("refused"), "the network or the server does not answer"),
        (type("EndpointConnectionError", (type("HTTPClientError", (Exception,), {}),), {})("x"), "does not answer"),
        (type("ClientError", (Exception,), {})("bad request"), "fsspec cannot read it (ClientError: bad request)"),
    ],
)
@pytest.mark.parametrize("method", ["info", "_open"])
def test_failures_of_a_file_system_are_told_as_what_they_are(put, monkeypatch, failure, said, method):
    url = put("/b/p.jsonl", lines(1))

    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(MemoryFileSystem, method, fail)
    message = error(url)
    assert message.startswith(url) and said in message


def test_the_state_of_a_file_changes_with_it(put):
    url = put("/b/p.jsonl", lines(1))
    ((named, size, mark),) = file_states(remote_files(url))
    assert (named, size) == (url, len(lines(1))) and mark
    put("/b/p.jsonl", lines(2))
    ((*same, other),) = file_states(remote_files(url))
    assert same == [named, size] and other != mark


def test_a_mark_of_the_content_counts_and_not_when_it_was_made(put, monkeypatch):
    url = put("/b/p.jsonl", lines(1))
    info = MemoryFileSystem.info
    made = iter(range(100))

    def with_etag(system, path, **kwargs):
        return {**info(system, path, **kwargs), "ETag": '"abc"', "created": next(made)}

    monkeypatch.setattr(MemoryFileSystem, "info", with_etag)
    assert file_states(remote_files(url)) == file_states(remote_files(url)) == [[url, len(lines(1)), '"abc"']]
