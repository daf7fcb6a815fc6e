"""Rows of a dataset that are read nearly in order, a block at a time."""

from collections.abc import Sequence
from typing import Any

import datasets

_ROWS_AT_ONCE = 64


class RowBlocks:
    """Some columns of a dataset's rows; memory holds one block of them."""

    def __init__(self, rows: datasets.Dataset, columns: Sequence[str]) -> None:
        self._rows = rows.select_columns(list(columns))
        self._first = -1
        self._block: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        first = row - row % _ROWS_AT_ONCE
        if first != self._first:
            self._first, self._block = first, self._rows[first : first + _ROWS_AT_ONCE]
        return {name: values[row - first] for name, values in self._block.items()}
