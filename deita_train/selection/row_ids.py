"""The ids of a pool's rows, which need not be Python objects, and their order."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Neighbours compared at once.
_ROWS_AT_ONCE = 65_536


class RowIds(Sequence[str]):
    """N ids in Arrow, often in a mapped file: an id is a Python object only once it is asked for."""

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "RowIds": ...

    def __getitem__(self, place: int | slice) -> "str | RowIds":
        if isinstance(place, slice):
            return RowIds(self.column[place])
        found: str = self.column[place].as_py()
        return found


def order_of_ids(ids: Sequence[str]) -> np.ndarray:
    """Positions `[N]` int64 of the rows sorted by id, in plain string order.

    Arrow compares bytes of UTF-8, which are ordered as the characters are. Memory: 16 bytes a row, and the ids once as
    bytes unless they are in Arrow in one piece.
    """
    column = _in_one_piece(ids.column) if isinstance(ids, RowIds) else pa.array(ids, pa.large_string())
    order = pc.array_sort_indices(column).to_numpy().astype(np.int64)
    for start in range(0, len(order) - 1, _ROWS_AT_ONCE):
        near = column.take(pa.array(order[start : start + _ROWS_AT_ONCE + 1]))
        assert not pc.any(pc.equal(near[1:], near[:-1])).as_py(), "row ids are not unique"
    return order


def _in_one_piece(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The ids without chunks: taking rows of a chunked column would join its chunks each time."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.cast(pa.large_string()).combine_chunks()
