"""The pool that a method selects from and the settings of the selection, with the columns as methods read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import datasets
import numpy as np
import torch

from deita_train.errors import UserError
from deita_train.scoring.evol_score import OverTurns, evol_score, over_turns
from deita_train.selection.columns import number_column, tag_column
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.repr_filter.unit_rows import UnitRows


@dataclass(frozen=True)
class Candidates:
    """N rows and the settings; all sequences in the order of the rows.

    Attributes:
        rows: dataset with ``id``, and with ``messages``, ``complexity_scores``, ``quality_scores`` or ``column`` where
            the method reads them.
        budget: rows to keep at most; ``None`` for as many as the method lets pass.
        embeddings: ``[N, D]`` float32 or float16, for the methods that need them.
        seed: for the methods that draw at random.
        threshold: highest cosine similarity that the Repr Filter lets pass.
        center: whether the mean of the pool is subtracted from the embeddings first.
        score: what is best: "evol", or one dimension alone.
        column: the column of numbers or of tags that the method reads.
        order: which perplexity goes first, "highest" or "lowest".
        clusters: how many clusters k-means makes; ``None`` for the square root of N / 2.
        quality_weight: what facility location weighs the score by, in [0, 1).
        label_similarity: lowest similarity at which MIG joins two labels.
        score_turns: whether a row's score is the "sum" or the "mean" over its turns.
        counted_turns: for each row which of its user turns the score counts; all when None.
        earlier: what the same selection with another budget decided, for the methods that go on from there.
        device: where the Repr Filter multiplies.
        group: the processes that carry out the Repr Filter together; ``None`` for this one alone.
    """

    rows: datasets.Dataset
    budget: int | None = None
    embeddings: np.ndarray | None = None
    seed: int | None = None
    threshold: float = 0.9
    center: bool = False
    score: str = "evol"
    column: str | None = None
    order: str = "highest"
    clusters: int | None = None
    quality_weight: float = 0.5
    label_similarity: float = 0.9
    score_turns: OverTurns = "sum"
    counted_turns: Sequence[Sequence[bool]] | None = None
    earlier: Trace | None = None
    device: torch.device | str = "cpu"
    group: Group | None = None

    @cached_property
    def ids(self) -> list[str]:
        """The row ids."""
        return list(self.rows["id"])

    @property
    def limit(self) -> int:
        """How many rows can be kept at most."""
        return len(self.ids) if self.budget is None else min(self.budget, len(self.ids))

    @cached_property
    def scores(self) -> np.ndarray:
        """``[N]`` float64 by ``score``: the evol score, or one dimension over the turns; nan for none."""
        return self.scores_by(self.score)

    def scores_by(self, score: str) -> np.ndarray:
        """``[N]`` float64 by "evol", "complexity" or "quality"; nan for a row without a scored turn."""
        columns = [self.values(f"{dimension}_scores") for dimension in self._dimensions(score)]
        over_row = partial(evol_score if score == "evol" else over_turns, how=self.score_turns)
        counted = [None] * len(self.ids) if self.counted_turns is None else self.counted_turns
        found = [
            over_row(*turns, counted=of_row) for turns, of_row in zip(zip(*columns, strict=True), counted, strict=True)
        ]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    @property
    def has_scores(self) -> bool:
        """Whether the pool has the columns that ``scores`` reads."""
        return all(f"{dimension}_scores" in self.rows.column_names for dimension in self._dimensions(self.score))

    def _dimensions(self, score: str) -> tuple[str, ...]:
        return ("complexity", "quality") if score == "evol" else (score,)

    @cached_property
    def numbers(self) -> np.ndarray:
        """``[N]`` float64, the numbers of ``column``; nan for none."""
        assert self.column is not None
        return number_column(self.rows, self.column)

    @cached_property
    def tags(self) -> list[tuple[str, ...]]:
        """The tags of each row in ``column``, sorted and each once."""
        assert self.column is not None
        return tag_column(self.rows, self.column)

    def unit_rows(self) -> UnitRows:
        """The embeddings as unit vectors."""
        assert self.embeddings is not None
        return UnitRows.measure(self.embeddings, self.ids, center=self.center)

    def values(self, name: str) -> Sequence[Any]:
        """The values of a column that the pipeline writes.

        Raises:
            UserError: the pool has no such column.
        """
        if name not in self.rows.column_names:
            raise UserError(
                f"the selection needs the column '{name}' and the pool has only {self.rows.column_names}. "
                "Add the missing scores to the pool, or choose a method that does not read them."
            )
        return list(self.rows[name])
