"""Bytes and lines of files: compression, encodings, and faults that are not the data's."""

import errno
import gzip
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from deita_train.data import data_file
from deita_train.data.sources import iter_rows
from deita_train.errors import UserError

LINE = '{"a": "é🙂"}\n'
ROW = {"a": "é🙂"}


def read(path):
    return [row.row for row in iter_rows(str(path))]


def error(path):
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


def long_window(content):
    """zstd content as `zstd --long=31` writes it from a pipe: its window is 2 GiB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    compressed = compressor.compress(content) + compressor.flush()
    assert zstandard.get_frame_parameters(compressed).window_size == 2**31
    return compressed


def test_zstd_with_the_longest_window(tmp_path):
    path = tmp_path / "p.jsonl.zst"
    path.write_bytes(long_window(LINE.encode() * 3) + long_window(LINE.encode()))
    assert read(path) == [ROW] * 4
    path.write_bytes(long_window(LINE.encode() * 3)[:-1])
    assert "ends inside a zstd frame" in error(path)


def test_zstd_content_larger_than_every_buffer(tmp_path):
    rows = [{"id": number, "text": "x" * 1000} for number in range(2000)]
    path = tmp_path / "p.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert read(path) == rows


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "jsonl.gz"])
@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32"),
        ("utf-32-be", "UTF-32"),
    ],
)
def test_wide_encodings_are_told_as_such(tmp_path, encoding, name, suffix):
    path = tmp_path / f"p.{suffix}"
    content = ("a,b\nc,d\n" if suffix == "csv" else LINE).encode(encoding)
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert error(path) == (
        f"{path}: the file is {name}; convert it to UTF-8, for instance with iconv -f {name} -t UTF-8"
    )


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_text(tmp_path):
    for name, content in {"p.jsonl": LINE, "p.json": f"[{LINE}]", "o.json": f'{{"rows": [{LINE}]}}'}.items():
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        assert read(tmp_path / name) == [ROW]
    (tmp_path / "p.csv").write_text("a,b\né🙂,\n", encoding="utf-8-sig")
    assert read(tmp_path / "p.csv") == [{"a": "é🙂", "b": None}]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EIO, "the disk is failing"),
        (errno.EACCES, "permission denied; change its permissions"),
        (errno.ENOSPC, "free some space"),
        (errno.ETIMEDOUT, "the network or the server does not answer"),
    ],
)
@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet", "p.csv"])
def test_a_fault_of_the_machine_is_not_told_as_damaged_data(tmp_path, monkeypatch, number, said, name):
    (tmp_path / name).write_bytes(b"x")

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pq, "ParquetFile", fail)
    monkeypatch.setattr(Path, "open", fail)
    message = error(tmp_path / name)
    assert message.startswith(str(tmp_path / name)) and said in message
    assert "damaged" not in message


def test_a_fault_in_the_middle_of_a_file_names_the_line(tmp_path, monkeypatch):
    class Torn(data_file._ZstdStream):
        def _decompressed(self, block):
            if self._raw.tell() > 2**14:
                raise OSError(errno.EIO, "Input/output error")
            return super()._decompressed(block)

    monkeypatch.setattr(data_file, "_ZstdStream", Torn)
    lines = [json.dumps({"a": os.urandom(3000).hex()}) for _ in range(20)]
    path = tmp_path / "p.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress("\n".join(lines).encode()))
    message = error(path)
    assert message.startswith(f"{path}:") and "the disk is failing" in message
