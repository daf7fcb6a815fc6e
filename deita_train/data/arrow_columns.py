"""Columns of a dataset in Arrow: read without Python objects, and added without copying the others."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets.table import InMemoryTable

_ROWS_AT_ONCE = 1000


def arrow_column(rows: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """A column in Arrow; of a dataset in its own order it stays memory-mapped."""
    return rows.select_columns([name]).with_format("arrow")[:][name]


def numbers_in(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers or truth values as `[N]` float64, nan for null."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    numbers: np.ndarray = pc.fill_null(column.cast(pa.float64(), safe=False), float("nan")).to_numpy()
    return numbers


def texts_by_code(codes: np.ndarray, texts: Sequence[str]) -> pa.Array:
    """For each of `[N]` codes the text at that place; null for -1."""
    numbers = pa.array(codes.astype(np.int8), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(numbers, pa.array(texts, pa.string())).cast(pa.string())


def with_arrow_column(
    rows: datasets.Dataset, name: str, column: pa.Array | pa.ChunkedArray, feature: Any
) -> datasets.Dataset:
    """The rows with one more column, at the end; one of the same name is replaced."""
    features = {other: rows.features[other] for other in rows.column_names if other != name} | {name: feature}
    table = rows.with_format("arrow")[:].select([other for other in features if other != name])
    schema = datasets.Features(features).arrow_schema
    table = table.append_column(schema.field(name), column.cast(schema.field(name).type)).cast(schema)
    mark = hashlib.blake2b(f"{rows._fingerprint} {name}".encode(), digest_size=8).hexdigest()
    return datasets.Dataset(
        InMemoryTable(table), info=datasets.DatasetInfo(features=datasets.Features(features)), fingerprint=mark
    )


def iter_columns(rows: datasets.Dataset, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The values of some columns in each row, read a thousand rows at a time."""
    for batch in rows.select_columns(list(names)).iter(batch_size=_ROWS_AT_ONCE):
        yield from zip(*(batch[name] for name in names), strict=True)


def iter_values(column: pa.Array | pa.ChunkedArray) -> Iterator[Any]:
    """The values of a column, converted a thousand at a time."""
    for start in range(0, len(column), _ROWS_AT_ONCE):
        yield from column.slice(start, _ROWS_AT_ONCE).to_pylist()
