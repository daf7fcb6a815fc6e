"""A raw row with its position."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SourceRow:
    """One raw row.

    Attributes:
        index: from 0, through all files of the dataset.
        where: "<file>:<line>" (from 1), or "<file or dataset>, row <index>" with the index in that file (from 0).
        row: its columns.
    """

    index: int
    where: str
    row: dict[str, Any]


def numbered_through(files: Iterable[Iterable[SourceRow]]) -> Iterator[SourceRow]:
    """The rows of several files, their index counted on from file to file."""
    index = 0
    for rows in files:
        for row in rows:
            yield SourceRow(index, row.where, row.row)
            index += 1
