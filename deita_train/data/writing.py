"""Writes a table in the format of its suffix: JSON Lines, a JSON array, Parquet, or a ``save_to_disk`` folder."""

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.data.json_text import decoded, holds_json
from deita_train.data.outputs import Output
from deita_train.errors import UserError

ROWS_PER_BATCH = 1000
SHARD_BYTES = 500_000_000
"""Of a Parquet shard, in memory: on disk it is smaller."""


def write_rows(rows: datasets.Dataset, output: Output) -> None:
    """Write a table to ``output`` atomically; equal tables give equal bytes.

    In JSON, columns of datasets' type ``Json`` are written as the values that they hold; Parquet and folders keep the
    type.

    Raises:
        UserError: something exists that ``output`` may not replace, or a number has no JSON form.
    """
    with output.writing() as path:
        if output.suffix is None:
            _write_folder(rows, path)
        elif output.suffix == ".parquet":
            _write_parquet(rows, path)
        else:
            _write_json(rows, path, output)


def write_shards(rows: datasets.Dataset, folder: Path, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write a table to a folder as Parquet files in the order of the rows; equal tables give equal bytes.

    They are named as the Hub's own library names them, from `train-00000-of-00002.parquet`. A table without rows is one
    file. Rows are read and written batch by batch.

    Args:
        rows: the table.
        folder: is made if need be.
        shard_bytes: a file has more only if a single row has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ends = _shard_ends(rows, shard_bytes)
    files = [folder / f"train-{number:05d}-of-{len(ends):05d}.parquet" for number in range(len(ends))]
    for file, start, end in zip(files, [0, *ends], ends, strict=False):
        _write_parquet(rows.select(range(start, end)), file)
    return files


def _shard_ends(rows: datasets.Dataset, shard_bytes: int) -> list[int]:
    """The number of rows up to the end of each shard."""
    ends, size, done = [], 0, 0
    for batch in _tables(rows):
        for piece in _within(batch, shard_bytes):
            if size and size + piece.nbytes > shard_bytes:
                ends.append(done)
                size = 0
            size, done = size + piece.nbytes, done + len(piece)
    return [*ends, done]


def _within(table: pa.Table, most_bytes: int) -> Iterator[pa.Table]:
    """The table, or its halves and so on, until each has few enough bytes or is one row."""
    if table.nbytes <= most_bytes or len(table) == 1:
        yield table
    else:
        for half in (table.slice(0, len(table) // 2), table.slice(len(table) // 2)):
            yield from _within(half, most_bytes)


def _write_folder(rows: datasets.Dataset, path: Path) -> None:
    datasets.disable_progress_bars()
    rows.save_to_disk(str(path))


def _write_parquet(rows: datasets.Dataset, path: Path) -> None:
    with pq.ParquetWriter(path, rows.features.arrow_schema) as writer:
        for table in _tables(rows):
            writer.write_table(table)


def _tables(rows: datasets.Dataset) -> Iterator[pa.Table]:
    yield from rows.with_format("arrow").iter(batch_size=ROWS_PER_BATCH)


def _write_json(rows: datasets.Dataset, path: Path, output: Output) -> None:
    """One object per line; in a .json file these are the elements of an array."""
    assert output.suffix is not None
    start, between, end = ("", "\n", "\n") if output.suffix.startswith(".jsonl") else ("[\n", ",\n", "\n]\n")
    with _open(path, output.suffix) as file:
        file.write(start.encode())
        for number, text in enumerate(_lines(rows, output)):
            file.write(f"{between if number else ''}{text}".encode())
        file.write(end.encode())


def _lines(rows: datasets.Dataset, output: Output) -> Iterator[str]:
    features = {name: feature for name, feature in rows.features.items() if holds_json(feature)}
    for table in _tables(rows):
        for row in table.to_pylist():
            for name, feature in features.items():
                row[name] = decoded(row[name], feature)
            yield _as_json(row, output)


def _as_json(row: dict[str, Any], output: Output) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UserError(
            f"--output {output.path}: row {row['id']!r} holds a number that JSON cannot write (nan or infinity). "
            "Write a .parquet file instead."
        ) from error


@contextmanager
def _open(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if suffix.endswith(".gz"):
            # Without name and time, so the same rows give the same bytes.
            file = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
        elif suffix.endswith(".zst"):
            file = stack.enter_context(pa.CompressedOutputStream(file, "zstd"))
        yield file
