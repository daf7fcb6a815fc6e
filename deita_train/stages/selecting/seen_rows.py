"""A selection of which only the rows that its walk looks at are embedded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.embeddings import embedded_ids, embeddings_of
from deita_train.data.texts import TextColumn, as_column, places_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.repr_filter import Trace, cut_trace, walk_order
from deita_train.selection.select_rows import select_rows
from deita_train.selection.unrankable import Reasons
from deita_train.stages.facts import SAVED
from deita_train.store.artefacts import MANIFEST
from deita_train.store.atomic_io import read_json

# As the table `trace/` of such an embedding has it.
REASON = "not_embedded"
Select = Callable[[int | None, Trace | None], Trace]


def is_walked(embed: Path) -> bool:
    """Whether a published embedding has only the rows that a walk looks at."""
    return (embed / "trace").exists()


def not_embedded(embed: Path, ids: Sequence[str]) -> Reasons:
    """For each row whether the embedder refused it."""
    if is_walked(embed):
        table = datasets.load_from_disk(str(embed / "trace"))
        reasons = arrow_column(table, REASON)
        is_refused = pc.invert(pc.is_in(reasons, value_set=pa.array([*SAVED, None], pa.string()))).to_numpy()
        refused = is_refused[places_of(ids, TextColumn(arrow_column(table, "id")))]
    else:
        refused = places_of(ids, embedded_ids(embed / "data")) < 0
    return [REASON if one else None for one in refused.tolist()]


@dataclass(frozen=True)
class SeenRows:
    """The rows that have an embedding: the leading ones of the walk, as far as it needs them.

    Attributes:
        candidates: the R rows, with embeddings.
        positions: `[R]` int64, of these among all N that can be ranked.
        order: `[N]` int64, `walk_order` of all.
    """

    candidates: Candidates
    positions: np.ndarray
    order: np.ndarray

    @classmethod
    def among(cls, candidates: Candidates, embed: Path) -> "SeenRows | None":
        """Those of a published embedding; None if it has all of them."""
        positions = np.flatnonzero(places_of(candidates.ids, embedded_ids(embed / "data")) >= 0)
        if len(positions) == len(candidates.ids):
            return None
        order = walk_order(candidates.ids, candidates.scores)
        assert np.array_equal(np.sort(order[: len(positions)]), positions), "other rows than the walk's first are there"
        part = candidates.subset(positions)
        return cls(replace(part, embeddings=embeddings_of(embed / "data", part.ids)), positions, order)

    def select(
        self, budget: int | None, earlier: Trace | None, *, device: torch.device | str, group: Group | None
    ) -> Trace:
        """As `select_rows` over all N rows, for a budget that the walk meets within these rows."""
        assert budget is not None
        num_rows = len(self.order)
        if earlier is not None and earlier.num_kept >= budget:
            return cut_trace(earlier, self.order, budget)
        if earlier is not None and earlier.num_seen >= len(self.positions):
            return earlier
        known = None if earlier is None else _at(earlier, self.positions)
        trace = select_rows(self.candidates, budget, known, device=device, group=group)
        return trace.within(self.positions, num_rows)


def has_same_vectors(selection: Path, embed: Path, seen: Sequence[str]) -> bool:
    """Whether a published selection was made from the vectors that another has: compared row by row, bit by bit.

    Args:
        selection: the published one.
        embed: the embedding that another selection reads.
        seen: the ids of the rows that the published one decided on.
    """
    other = selection.parent / read_json(selection / MANIFEST)["parents"]["embed"]
    if other.name == embed.name:
        return True
    there = [places_of(seen, embedded_ids(folder / "data")) >= 0 for folder in (embed, other)]
    shared = as_column(seen).at(np.flatnonzero(there[0] & there[1]))
    first, second = (embeddings_of(folder / "data", shared) for folder in (embed, other))
    return first.dtype == second.dtype and np.array_equal(first, second)


def _at(trace: Trace, positions: np.ndarray) -> Trace:
    """The decisions on the rows at some positions, ascending, which include all that were kept."""
    blockers = trace.blocked_by[positions]
    blocked_by = np.where(blockers >= 0, np.searchsorted(positions, blockers), -1)
    return Trace(trace.selection_rank[positions], trace.nearest_similarity[positions], blocked_by)
