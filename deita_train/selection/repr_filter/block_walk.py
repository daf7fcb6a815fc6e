"""The Repr Filter over a pool of which only the leading rows of the walk are known, and more as they are wanted.

The walk decides on one row after the other by the rows kept before it, so what it decides on its first rows does not
depend on the others (paper 2.5). Whoever makes the embeddings can therefore make those of the first rows, let the walk
go as far as they reach, and make more only where the budget is not met: every decision is that of a walk over all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch

from deita_train.data.texts import as_column
from deita_train.selection.repr_filter.repr_filter import Trace, repr_filter


@dataclass
class BlockWalk:
    """A walk that is told the embeddings of ever more of its leading rows.

    Attributes:
        ids: of the W rows in the order of the walk.
        scores: ``[W]`` float64 in the same order.
        budget: rows to keep, or with ``tokens`` training tokens; at least 1.
        threshold: tau of the paper.
        tokens: ``[W]`` int64, the training tokens of each row, for a budget of tokens.
        device: where it multiplies.
    """

    ids: Sequence[str]
    scores: np.ndarray
    budget: int
    threshold: float
    tokens: np.ndarray | None = None
    device: torch.device | str = "cpu"
    _trace: Trace = field(default_factory=lambda: Trace.empty(0), init=False)
    _last_rows: int = field(default=0, init=False)
    _last_found: int = field(default=0, init=False)

    @property
    def num_known(self) -> int:
        """How many leading rows the walk has been told."""
        return len(self._trace.selection_rank)

    @property
    def num_kept(self) -> int:
        """How many of them it has kept."""
        return self._trace.num_kept

    @property
    def num_seen(self) -> int:
        """How many of them it has decided on."""
        return self._trace.num_seen

    @property
    def found(self) -> int:
        """What it has kept: rows, or tokens."""
        return self._amount(self._trace.kept)

    @property
    def is_over(self) -> bool:
        """Whether the walk ends within the rows that it knows.

        A budget of tokens ends before the first row that would exceed it, so this row must be known too: a row without
        a token that is trained may still follow the one that fills the budget.
        """
        enough = self.found >= self.budget if self.tokens is None else self.found > self.budget
        return enough or self.num_known == len(self.ids)

    def wanted(self) -> int:
        """How many leading rows it must know to go on; as many as it knows once it is over.

        The first block is the least that could do: the budget, if every row were kept. A later one is what is left of
        the budget, divided by what a row of the block before it brought, because fewer and fewer rows are kept; it at
        most doubles what is known.
        """
        known = self.num_known
        if self.is_over:
            return known
        if not known:
            return min(len(self.ids), self._least())
        left = max(1, self.budget - self.found)
        rows = ceil(left * self._last_rows / self._last_found) if self._last_found else known
        return min(len(self.ids), known + min(max(rows, 1), known))

    def take(self, embeddings: np.ndarray) -> None:
        """Go on over the rows that are known now.

        Args:
            embeddings: ``[R, D]`` float32 or float16 of the R leading rows, the ones told before included.

        Raises:
            UserError: as ``repr_filter``.
        """
        rows, before, found = len(embeddings), self.num_known, self.found
        assert before < rows <= len(self.ids), (before, rows)
        self._trace = repr_filter(
            embeddings,
            as_column(self.ids).first(rows),
            self.scores[:rows],
            budget=self.budget if self.tokens is None else None,
            threshold=self.threshold,
            earlier=self._trace.within(np.arange(before), rows) if before else None,
            device=self.device,
        )
        self._last_rows, self._last_found = rows - before, self.found - found

    def _least(self) -> int:
        """The fewest rows that could meet the budget, in the order of the walk."""
        if self.tokens is None:
            return self.budget
        return int(np.searchsorted(self.tokens.cumsum(), self.budget, side="right")) + 1

    def _amount(self, rows: np.ndarray) -> int:
        return len(rows) if self.tokens is None else int(self.tokens[rows].sum())
