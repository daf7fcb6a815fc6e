"""Prepared rows on disk: uncompressed Arrow, written row by row and read memory-mapped.

Only what is asked for enters memory, and all processes of a machine share the pages.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import InMemoryTable

IDS, LABELS = "input_ids", "labels"
IDS_TYPE = pa.list_(pa.int32())
ROWS_PER_BATCH = 1024


class RowWriter:
    """Writes rows to one file, which is complete once the `with` block ends without an error."""

    def __init__(self, path: Path, columns: Mapping[str, pa.DataType]) -> None:
        """Begin the file, with columns of these types."""
        self._schema = pa.schema(list(columns.items()))
        path.unlink(missing_ok=True)  # which may be linked elsewhere
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)
        self._pending: dict[str, list[Any]] = {name: [] for name in columns}
        self.num_rows = 0

    def append(self, **values: Any) -> None:
        """Add a row: a value for every column."""
        for name, pending in self._pending.items():
            pending.append(values[name])
        self.num_rows += 1
        if self.num_rows % ROWS_PER_BATCH == 0:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        arrays = [pa.array(self._pending[field.name], field.type) for field in self._schema]
        if len(arrays[0]):
            self._writer.write_batch(pa.record_batch(arrays, self._schema))
        for pending in self._pending.values():
            pending.clear()


class RowFile:
    """The rows of a file that :class:`RowWriter` wrote, memory-mapped."""

    def __init__(self, path: Path) -> None:
        """Map the file; nothing of its rows is read yet."""
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._schema = reader.schema
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def table(self) -> pa.Table:
        """All rows, still memory-mapped."""
        return pa.Table.from_batches(self._batches, self._schema)

    @property
    def lengths(self) -> np.ndarray:
        """The tokens of each row, int32 [N]."""
        parts = [np.diff(_offsets(batch.column(self._place(IDS)))) for batch in self._batches]
        return np.concatenate([np.empty(0, np.int32), *parts]).astype(np.int32, copy=False)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column, still memory-mapped."""
        place = self._place(name)
        return pa.chunked_array([batch.column(place) for batch in self._batches], self._schema.field(place).type)

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers or truth values without nulls, [N]."""
        values: np.ndarray = self.column(name).to_numpy()
        return values

    def tokens(self, row: int, name: str = IDS) -> np.ndarray:
        """The token ids, or labels, of one row: int32 [T], a view of the mapped file."""
        batch = int(np.searchsorted(self._starts, row, "right")) - 1
        lists = self._batches[batch].column(self._place(name))
        place = row - int(self._starts[batch])
        start, end = _offsets(lists)[place : place + 2]
        tokens: np.ndarray = lists.values.to_numpy()[start:end]
        return tokens

    def rows(self, places: Sequence[int] | np.ndarray, name: str = IDS) -> list[np.ndarray]:
        """The same of several rows."""
        return [self.tokens(int(place), name) for place in places]

    def each(self, name: str = IDS) -> Iterator[np.ndarray]:
        """The token ids, or labels, of every row in order."""
        for batch in self._batches:
            lists = batch.column(self._place(name))
            offsets, values = _offsets(lists), lists.values.to_numpy()
            for start, end in pairwise(offsets.tolist()):
                yield values[start:end]

    def _place(self, name: str) -> int:
        return int(self._schema.get_field_index(name))


def _offsets(lists: pa.ListArray) -> np.ndarray:
    offsets: np.ndarray = lists.offsets.to_numpy()
    return offsets


def write_dataset(rows: Iterable[Mapping[str, Any]], features: datasets.Features, folder: Path) -> int:
    """Write rows one by one to a `save_to_disk` folder, without holding them; returns how many there were.

    Without a row there is no folder.
    """
    schema = features.arrow_schema
    file = folder.with_name(f"{folder.name}.arrow.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    with RowWriter(file, dict(zip(schema.names, schema.types, strict=True))) as writer:
        for row in rows:
            writer.append(**row)
    if writer.num_rows:
        table = RowFile(file).table.replace_schema_metadata(schema.metadata)
        datasets.Dataset(InMemoryTable(table)).save_to_disk(str(folder))
    file.unlink()
    return writer.num_rows
