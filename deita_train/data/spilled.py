"""Arrow tables that lie in files once they are large; the files have no name and go with the tables."""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import overload

import numpy as np
import pyarrow as pa

_ROWS_AT_ONCE = 1000


class SpilledTables(Sequence[pa.Table]):
    """Tables added one by one; those beyond `most_in_memory` bytes are memory-mapped files.

    A table that was added is one record batch.
    """

    def __init__(self, most_in_memory: int) -> None:
        self._most_in_memory = most_in_memory
        self._tables: list[pa.Table] = []
        self._in_memory: list[int] = []  # bytes of the last tables

    def __len__(self) -> int:
        return len(self._tables)

    @overload
    def __getitem__(self, place: int) -> pa.Table: ...
    @overload
    def __getitem__(self, place: slice) -> list[pa.Table]: ...
    def __getitem__(self, place: int | slice) -> pa.Table | list[pa.Table]:
        return self._tables[place]

    def append(self, table: pa.Table) -> None:
        """Add a table."""
        self._tables.append(table)
        self._in_memory.append(table.nbytes)
        if sum(self._in_memory) > self._most_in_memory:
            first = len(self._tables) - len(self._in_memory)
            self._tables[first:] = _mapped(self._tables[first:])
            self._in_memory.clear()


def _mapped(tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """The same tables in memory-mapped files without a name."""
    for schema, alike in groupby(tables, key=lambda table: table.schema):
        with tempfile.NamedTemporaryFile(prefix="deita-rows-", suffix=".arrow") as file:
            with pa.OSFile(file.name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for table in alike:
                    writer.write_table(table.combine_chunks())
            reader = pa.ipc.open_file(pa.memory_map(file.name))
            for number in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(number)])


def filtered(table: pa.Table, kept: np.ndarray, most_in_memory: int = 1 << 26) -> pa.Table:
    """The rows of a table that are `kept`, [N] bool, at least one, without holding more than `most_in_memory` bytes."""
    tables, start = SpilledTables(most_in_memory), 0
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        mask = pa.array(kept[start : start + len(batch)])
        tables.append(pa.Table.from_batches([batch.filter(mask)]))
        start += len(batch)
    return pa.concat_tables(tables)
