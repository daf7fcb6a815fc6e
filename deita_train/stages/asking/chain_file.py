"""The published table of chains, read one chain at a time."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.lazy_sequence import LazySequence, in_groups
from deita_train.data.row_table import as_dataset
from deita_train.data.spilled import SpilledTables
from deita_train.evolve.chains import Version

FEATURES = datasets.Features(
    {
        "seed_id": datasets.Value("string"),
        "step": datasets.Value("int32"),
        "operation": datasets.Value("string"),
        "instruction": datasets.Value("string"),
        "response": datasets.Value("string"),
        "status": datasets.Value("string"),
        "raw": datasets.Value("string"),
    }
)
"""One row for each version; `step` 0 is the seed itself, `status` "ok" or why the version was dropped."""

_MOST_IN_MEMORY = 1 << 26
_VERSIONS_PER_TABLE = 256


class ChainFile(Mapping[str, list[Version]]):
    """All versions of each seed, by its id; memory holds where each chain begins."""

    def __init__(self, data: Path) -> None:
        """Open a table in which the versions of a seed follow each other, as `write_chains` leaves it."""
        rows = datasets.load_from_disk(str(data))
        self._rows = rows.with_format("arrow")
        steps = arrow_column(rows, "step").to_numpy()
        self._starts = np.append(np.flatnonzero(steps == 0), len(steps))
        self._seed_ids = arrow_column(rows, "seed_id")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[str]:
        for start in self._starts[:-1].tolist():
            yield self._seed_ids[start].as_py()

    def __getitem__(self, seed_id: str) -> list[Version]:
        place = pc.index(self._seed_ids, seed_id).as_py()
        if place < 0:
            raise KeyError(seed_id)
        return self.chain(int(np.searchsorted(self._starts, place)))

    def items(self) -> ItemsView[str, list[Version]]:
        """Ids and chains, read in order."""
        return _Items(self)

    def chains(self) -> Iterator[list[Version]]:
        """The chains in the order of their seeds."""
        return map(self.chain, range(len(self)))

    def chain(self, number: int) -> list[Version]:
        """The chain of a seed, by its place among them."""
        versions: pa.Table = self._rows[int(self._starts[number]) : int(self._starts[number + 1])]
        return [Version(**row) for row in versions.to_pylist()]


class _Items(ItemsView[str, list[Version]]):
    _mapping: ChainFile

    def __iter__(self) -> Iterator[tuple[str, list[Version]]]:
        return ((chain[0].seed_id, chain) for chain in self._mapping.chains())


class GrowingVersions(LazySequence[Version]):
    """The versions of one step of many chains, added in their order; on disk but for the last ones."""

    def __init__(self) -> None:
        self._tables = SpilledTables(_MOST_IN_MEMORY)
        self._pending: list[Version] = []
        self._number = -1  # of the table whose versions were read last
        self._read: list[Version] = []

    def __len__(self) -> int:
        return len(self._tables) * _VERSIONS_PER_TABLE + len(self._pending)

    def append(self, version: Version) -> None:
        """Add the version of the next chain."""
        self._pending.append(version)
        if len(self._pending) == _VERSIONS_PER_TABLE:
            self._tables.append(_table_of(self._pending))
            self._pending.clear()

    def item(self, place: int) -> Version:
        """The version of a chain."""
        number, row = divmod(place, _VERSIONS_PER_TABLE)
        if number == len(self._tables):
            return self._pending[row]
        if number != self._number:
            self._number, self._read = number, [Version(**fields) for fields in self._tables[number].to_pylist()]
        return self._read[row]


def write_chains(chains: Iterable[Sequence[Version]], data: Path) -> int:
    """Write chains as they come; how many versions they have.

    Args:
        chains: at least one.
        data: the folder.
    """
    tables = SpilledTables(_MOST_IN_MEMORY)
    for group in in_groups(chains, _VERSIONS_PER_TABLE):
        tables.append(_table_of([version for chain in group for version in chain]))
    table = pa.concat_tables(tables)
    as_dataset(table).save_to_disk(str(data))
    return len(table)


def _table_of(versions: Iterable[Version]) -> pa.Table:
    return pa.Table.from_pylist([asdict(version) for version in versions], schema=FEATURES.arrow_schema)
