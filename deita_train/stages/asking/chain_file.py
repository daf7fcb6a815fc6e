"""The published table of chains, read one chain at a time."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.arrow_columns import arrow_column
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
        return self._chain(int(np.searchsorted(self._starts, place)))

    def items(self) -> ItemsView[str, list[Version]]:
        """Ids and chains, read in order."""
        return _Items(self)

    def chains(self) -> Iterator[list[Version]]:
        """The chains in the order of their seeds."""
        return map(self._chain, range(len(self)))

    def _chain(self, number: int) -> list[Version]:
        versions: pa.Table = self._rows[int(self._starts[number]) : int(self._starts[number + 1])]
        return [Version(**row) for row in versions.to_pylist()]


class _Items(ItemsView[str, list[Version]]):
    _mapping: ChainFile

    def __iter__(self) -> Iterator[tuple[str, list[Version]]]:
        return ((chain[0].seed_id, chain) for chain in self._mapping.chains())


def write_chains(groups: Iterable[Sequence[Sequence[Version]]], data: Path) -> int:
    """Write chains as they come, a group at a time; how many versions they have.

    Args:
        groups: of chains.
        data: the folder.
    """
    tables = SpilledTables(_MOST_IN_MEMORY)
    for group in groups:
        versions = [asdict(version) for chain in group for version in chain]
        tables.append(pa.Table.from_pylist(versions, schema=FEATURES.arrow_schema))
    table = pa.concat_tables(tables)
    as_dataset(table).save_to_disk(str(data))
    return len(table)
