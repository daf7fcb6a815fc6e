"""Which threshold of the Repr Filter would meet a budget that the one asked for cannot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deita_train.errors import UserError
from deita_train.selection.repr_filter import repr_filter

STEPS_PER_UNIT = 1000


@dataclass(frozen=True)
class SufficientThreshold:
    """A threshold at which the walk reaches the budget, a multiple of 0.001.

    Attributes:
        threshold: 1.0 means that only a walk without a diversity filter reaches the budget.
        num_seen: rows that the walk had seen when the budget was full.
        num_walks: how often the pool was walked to find it.
    """

    threshold: float
    num_seen: int
    num_walks: int


def sufficient_threshold(
    embeddings: np.ndarray,
    ids: Sequence[str],
    scores: np.ndarray,
    *,
    budget: int,
    above: float = -1.0,
    center: bool = False,
) -> SufficientThreshold:
    """The threshold at which the walk over the pool reaches the budget, and 0.001 below which it does not.

    Found by bisection over the multiples of 0.001 above ``above``, each tried by a walk of its own that ends at the
    budget. A walk costs at most N * budget * D multiply-adds, like the selection itself, and there are
    ceil(log2((1 - above) / 0.001)) of them, one more at the most: 7 above 0.9, 11 above -1. The walk is greedy, so
    that now and then a lower threshold keeps more rows than a higher one (an early row is rejected that would have
    blocked two others): a threshold further below may reach the budget too.

    Args:
        embeddings: ``[N, D]`` as for ``repr_filter``.
        ids: N unique row ids.
        scores: ``[N]`` float64, as for ``repr_filter``.
        budget: rows wanted, at least 1.
        above: a threshold that does not reach the budget, -1 if none is known.
        center: as for ``repr_filter``.

    Raises:
        UserError: the pool has fewer rows than the budget, or what ``repr_filter`` raises.
    """
    if budget > len(ids):
        raise UserError(
            f"the budget is {budget} and the pool has only {len(ids)} rows: no threshold can meet it. Lower the budget "
            "or add rows to the pool."
        )
    assert -1 <= above < 1, above

    def rows_seen(step: int) -> int | None:
        """Rows seen until the budget was full at a threshold of ``step`` thousandths; None if it was not."""
        threshold = step / STEPS_PER_UNIT
        trace = repr_filter(embeddings, ids, scores, budget=budget, threshold=threshold, center=center)
        num_kept = int((trace.selection_rank >= 0).sum())
        return num_kept + int((trace.blocked_by >= 0).sum()) if num_kept == budget else None

    # With a threshold of 1 nothing is rejected: the budget is full after as many rows.
    low, high, seen, num_walks = int(np.floor(above * STEPS_PER_UNIT)), STEPS_PER_UNIT, budget, 0
    while high - low > 1:
        middle, num_walks = (low + high) // 2, num_walks + 1
        found = rows_seen(middle)
        low, high, seen = (middle, high, seen) if found is None else (low, middle, found)
    return SufficientThreshold(high / STEPS_PER_UNIT, seen, num_walks)
