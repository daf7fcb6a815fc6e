"""The rows that a method selects from, with what it reads of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import repeat
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column, iter_columns, iter_values
from deita_train.data.texts import TextColumn
from deita_train.errors import UserError
from deita_train.scoring.evol_score import evol_score, over_turns
from deita_train.selection.pool_columns import number_column, tag_column
from deita_train.selection.repr_filter.unit_rows import UnitRows
from deita_train.selection.settings import DIMENSIONS, Score, SelectionSettings, score_dimensions
from deita_train.selection.weighting import weighted_score


@dataclass(frozen=True)
class Queries:
    """What rows are wanted for: the ids and the embeddings `[Q, D]` of a task's questions."""

    ids: Sequence[str]
    embeddings: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """N rows and how to select from them; all sequences are in the order of the rows.

    Attributes:
        rows: dataset with `id`, and with `messages`, `complexity_scores`, `quality_scores` (one score or null per user
            turn) or the column of the settings where the method reads them.
        settings: the method and its settings.
        embeddings: `[N, D]` float32 or float16, for the methods that read them.
        mean: `[D]` float64, the mean of all embeddings of the pool, which `center` subtracts; None for that of these
            rows, where they are the whole pool.
        whole_pool_scores: `[N]` float64 weighted scores, where they were scaled over more rows than these.
        queries: those of `select.target`, embedded as the rows are; they may be any number.
        counted_turns: for each row which of its user turns the score counts, lists of truth values; null for all turns
            of a row, None for all turns of all rows.
    """

    rows: datasets.Dataset
    settings: SelectionSettings
    embeddings: np.ndarray | None = None
    mean: np.ndarray | None = None
    queries: Queries | None = None
    counted_turns: pa.ListArray | None = None
    whole_pool_scores: np.ndarray | None = None

    def subset(self, positions: Sequence[int] | np.ndarray) -> "Candidates":
        """The rows at these positions, with the same settings, and weighted scores as they are among all rows."""
        weighted = not isinstance(self.settings.ranked_by, str) and self.settings.rules.scores != "none"
        return replace(
            self,
            rows=self.rows.select(positions),
            embeddings=None if self.embeddings is None else self.embeddings[positions],
            counted_turns=None if self.counted_turns is None else self.counted_turns.take(pa.array(positions)),
            whole_pool_scores=self.scores[positions] if weighted else None,
        )

    @cached_property
    def ids(self) -> TextColumn:
        """The row ids."""
        return TextColumn(arrow_column(self.rows, "id"))

    @cached_property
    def scores(self) -> np.ndarray:
        """`[N]` float64 scores that the method ranks by; nan for a row without a scored turn or a weighted number."""
        score = self.settings.ranked_by
        if isinstance(score, str):
            return self._over_turns(score)
        if self.whole_pool_scores is not None:
            return self.whole_pool_scores
        return weighted_score({name: self.numbers_of(name) for name in score["weights"]}, score)

    def numbers_of(self, name: str) -> np.ndarray:
        """`[N]` float64 of what a number's name stands for, nan for none: a score of the rows, else a column."""
        if name in ("evol", *DIMENSIONS) and self._has_scores(name):
            return self._over_turns(name)
        return number_column(self.rows, name)

    def _over_turns(self, score: Score) -> np.ndarray:
        turns = self.values(*_columns_of(score))
        counted = repeat(None, len(self.rows)) if self.counted_turns is None else iter_values(self.counted_turns)
        combined = evol_score if score == "evol" else over_turns
        over_row = partial(combined, how=self.settings.score_turns)
        found = (over_row(*of_row, counted=counts) for of_row, counts in zip(turns, counted, strict=True))
        return np.fromiter((np.nan if value is None else value for value in found), np.float64, len(self.rows))

    @property
    def has_scores(self) -> bool:
        """Whether the rows have the columns that `scores` reads."""
        score = self.settings.ranked_by
        return not isinstance(score, str) or self._has_scores(score)

    def _has_scores(self, score: Score) -> bool:
        return all(name in self.rows.column_names for name in _columns_of(score))

    @cached_property
    def numbers(self) -> np.ndarray:
        """`[N]` float64 numbers of the column; nan for none."""
        assert self.settings.column is not None
        return number_column(self.rows, self.settings.column)

    @cached_property
    def tags(self) -> list[tuple[str, ...]]:
        """The distinct tags of each row, sorted."""
        assert self.settings.column is not None
        return tag_column(self.rows, self.settings.column)

    def unit_rows(self) -> UnitRows:
        """The embeddings as unit vectors."""
        assert self.embeddings is not None
        return UnitRows.measure(self.embeddings, self.ids, center=self.settings.center, mean=self.mean)

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The values of columns that the pipeline writes, row by row.

        Raises:
            UserError: the pool has no such column.
        """
        missing = [name for name in names if name not in self.rows.column_names]
        if missing:
            raise UserError(
                f"the selection needs the column '{missing[0]}' and the pool has only {self.rows.column_names}. "
                "Add the missing scores to the pool, or choose a method that does not read them."
            )
        return iter_columns(self.rows, names)


def _columns_of(score: Score) -> list[str]:
    return [f"{dimension}_scores" for dimension in score_dimensions(score)]
