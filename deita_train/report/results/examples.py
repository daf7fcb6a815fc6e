"""Reads a few rows of a selection with their texts: rejected ones with what blocked them, kept ones, others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow.compute as pc

from deita_train.data.arrow_columns import arrow_column, numbers_in
from deita_train.data.as_text import message_text
from deita_train.report.statistics import evenly

NUM_REJECTIONS = 5
NUM_SIDE_BY_SIDE = 3
# Of a row's text; the rest is in the pool.
EXCERPT_CHARS = 4000


@dataclass(frozen=True)
class Excerpt:
    """A row of the pool as an example.

    Attributes:
        id: of the row.
        text: how its conversation begins, each message after its role.
        num_chars: of the whole text.
        rank: its place among the kept rows, from 1; None for a row that was not kept.
        evol_score: None where the method read none.
    """

    id: str
    text: str
    num_chars: int
    rank: int | None
    evol_score: float | None


@dataclass(frozen=True)
class Rejection:
    """A row that the walk passed over, the kept row that blocked it, and the cosine of their embeddings."""

    rejected: Excerpt
    kept: Excerpt
    similarity: float


@dataclass(frozen=True)
class SelectionExamples:
    """Rows of a selection.

    Attributes:
        rejections: spread evenly over the rejected rows, the nearest pair first; empty where a method does not walk.
        kept: those that were taken first.
        not_selected: spread evenly over the pool; empty where there are rejections.
    """

    rejections: tuple[Rejection, ...]
    kept: tuple[Excerpt, ...]
    not_selected: tuple[Excerpt, ...]


def read_examples(select: Path, pool: Path) -> SelectionExamples:
    """Read the examples of a selection.

    Args:
        select: the selection's artefact, whose `trace/` has a row for each row of the pool, in the same order.
        pool: the artefact of the pool that it read; of its texts only those of the examples are read.
    """
    rows = _Rows(datasets.load_from_disk(str(select / "trace")), datasets.load_from_disk(str(pool / "data")))
    kept = np.flatnonzero(~np.isnan(rows.rank))
    first = kept[np.argsort(rows.rank[kept])][:NUM_SIDE_BY_SIDE]
    rejections = tuple(rows.rejection(place) for place in evenly(rows.rejected(), NUM_REJECTIONS))
    others = () if rejections else evenly(np.flatnonzero(np.isnan(rows.rank)), NUM_SIDE_BY_SIDE)
    return SelectionExamples(rejections, tuple(map(rows.excerpt, first)), tuple(map(rows.excerpt, others)))


class _Rows:
    """The rows of a pool of N, each with what became of it."""

    def __init__(self, trace: datasets.Dataset, pool: datasets.Dataset) -> None:
        assert len(trace) == len(pool), f"{len(trace)} rows of a trace, {len(pool)} of its pool"
        self._trace, self._pool = trace, pool
        self.rank = numbers_in(arrow_column(trace, "selection_rank"))

    def rejected(self) -> np.ndarray:
        """The places of the rejected rows, the nearest to a kept one first."""
        if not {"blocked_by", "nearest_similarity"} <= set(self._trace.column_names):
            return np.array([], dtype=np.int64)
        places = np.flatnonzero(pc.is_valid(arrow_column(self._trace, "blocked_by")).to_numpy())
        return places[np.argsort(-numbers_in(arrow_column(self._trace, "nearest_similarity"))[places], kind="stable")]

    def rejection(self, place: int) -> Rejection:
        row = self._trace[int(place)]
        blocker = pc.index(arrow_column(self._trace, "id"), row["blocked_by"]).as_py()
        assert blocker >= 0 and not np.isnan(self.rank[blocker]), f"{row['blocked_by']} blocks others and is not kept"
        return Rejection(self.excerpt(place), self.excerpt(blocker), float(row["nearest_similarity"]))

    def excerpt(self, place: int) -> Excerpt:
        traced, row, rank = self._trace[int(place)], self._pool[int(place)], self.rank[place]
        assert traced["id"] == row["id"], f"row {place} of the pool is {row['id']}, and {traced['id']} in the trace"
        text = "\n".join(f"{message['role']}: {message_text(message)}" for message in row["messages"])
        number = None if np.isnan(rank) else int(rank) + 1
        return Excerpt(row["id"], text[:EXCERPT_CHARS], len(text), number, traced.get("evol_score"))
