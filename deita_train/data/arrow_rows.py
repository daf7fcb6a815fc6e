"""Rows of Arrow tables: Parquet files, and the tables of ``datasets``. What Arrow holds as JSON is decoded."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.data.data_file import BROKEN_FILE, DataFile, unreadable
from deita_train.data.source_row import SourceRow
from deita_train.errors import UserError

ROWS_PER_BATCH = 1000
_JSON = datasets.Json()
Decoder = Callable[[Any], Any]


def table_rows(table: pa.Table | pa.RecordBatch, label: str, start: int = 0) -> Iterator[SourceRow]:
    """The rows of a table, the first of which has the index ``start``.

    A value of Arrow's JSON type (``datasets.Json``), at any depth, is decoded as datasets does it. Images and audio are
    left as they are stored.

    Raises:
        UserError: naming row and column, if such a value is no JSON.
    """
    decoders = {field.name: decode for field in table.schema if (decode := _decoder(field.type)) is not None}
    for index, row in enumerate(table.to_pylist(), start=start):
        where = f"{label}, row {index}"
        for name, decode in decoders.items():
            try:
                row[name] = decode(row[name])
            except ValueError as error:
                raise UserError(
                    f"{where}: column {name!r} is of the type JSON, and this value is none ({error}); write it again"
                ) from error
        yield SourceRow(index, where, row)


def _decoder(type: pa.DataType) -> Decoder | None:
    """What turns a stored value of a type into what it says; None where nothing of it is JSON."""
    if isinstance(type, pa.JsonType):
        return _decoded
    if pa.types.is_struct(type):
        fields = {field.name: decode for field in type if (decode := _decoder(field.type)) is not None}
        return _of_fields(fields) if fields else None
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        decode = _decoder(type.value_type)
        return None if decode is None else _of_items(decode)
    return None


def _decoded(text: str | None) -> Any:
    try:
        return _JSON.decode_example(text)
    except ValueError:  # among others, a whole number beyond 64 bits
        return json.loads(text or "")


def _of_fields(decoders: dict[str, Decoder]) -> Decoder:
    def decode_fields(value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value and {**value, **{name: decode(value[name]) for name, decode in decoders.items()}}

    return decode_fields


def _of_items(decode: Decoder) -> Decoder:
    def decode_items(value: list[Any] | None) -> list[Any] | None:
        return value and [decode(item) for item in value]

    return decode_items


def dataset_rows(dataset: datasets.Dataset | datasets.IterableDataset, label: str) -> Iterator[SourceRow]:
    """The rows of a dataset, 1,000 at a time."""
    index = 0
    # The arrow format leaves images and audio undecoded.
    for table in dataset.with_format("arrow").iter(batch_size=ROWS_PER_BATCH):
        yield from table_rows(table, label, index)
        index += table.num_rows


def parquet_rows(file: DataFile) -> Iterator[SourceRow]:
    """The rows of a Parquet file, up to 1,000 at a time.

    Raises:
        UserError: while reading, if the file cannot be read.
    """
    index = 0
    try:
        with ExitStack() as stack:
            source = file.path if file.path is not None else stack.enter_context(file.open())
            parquet = stack.enter_context(closing(pq.ParquetFile(source)))
            for group in range(parquet.num_row_groups):
                for batch in _batches(parquet, group):
                    yield from table_rows(batch, file.label, index)
                    index += batch.num_rows
    except BROKEN_FILE as error:
        raise unreadable(f"{file.label}, after row {index}" if index else file.label, error) from error


def _batches(parquet: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
    """The batches of one row group.

    Arrow cannot read more than 2 GiB of a nested column at once ("Nested data conversions not implemented for chunked
    array outputs"); such rows are read in batches of a tenth, and again of a tenth.
    """
    num_rows = parquet.metadata.row_group(group).num_rows
    size, done = ROWS_PER_BATCH, 0
    while done < num_rows:
        try:
            for batch in _without_first(parquet.iter_batches(size, row_groups=[group]), done):
                yield batch
                done += batch.num_rows
        except pa.ArrowNotImplementedError:
            if size == 1:
                raise
            size //= 10


def _without_first(batches: Iterator[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        skipped = min(num_rows, batch.num_rows)
        num_rows -= skipped
        if skipped < batch.num_rows:
            yield batch.slice(skipped)
