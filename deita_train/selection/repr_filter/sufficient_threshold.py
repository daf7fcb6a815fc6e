"""Which threshold of the Repr Filter would meet a budget that the one asked for cannot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deita_train.errors import UserError
from deita_train.selection.repr_filter.repr_filter import Trace, repr_filter, walk_order
from deita_train.selection.token_budget import rows_within, walk_tokens

STEPS_PER_UNIT = 1000


def _tell_nobody(walks: int, most: int) -> None:
    """Where nobody asks how far the search is."""


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
    mean: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = _tell_nobody,
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
        budget: rows wanted, or with ``lengths`` tokens; at least 1.
        above: a threshold that does not reach the budget, -1 if none is known.
        center: as for ``repr_filter``.
        mean: as for ``repr_filter``.
        lengths: ``[N]`` int64, the tokens of each row, for a budget of tokens (``walk_tokens``).
        device: where the walks multiply.
        progress: called with the number of walks done, and the most there may be.

    Raises:
        UserError: the pool has less than the budget, or what ``repr_filter`` raises.
    """
    whole = len(ids) if lengths is None else int(lengths.sum())
    if budget > whole:
        unit = "rows" if lengths is None else "tokens"
        raise UserError(
            f"the budget is {budget} and the pool has only {whole} {unit}: no threshold can meet it. Lower the budget "
            "or add rows to the pool."
        )
    assert -1 <= above < 1, above

    def rows_seen(step: int) -> int | None:
        """Rows seen until the budget was full at a threshold of ``step`` thousandths; None if it was not."""

        def walk(num_rows: int, earlier: Trace | None) -> Trace:
            threshold = step / STEPS_PER_UNIT
            return repr_filter(
                embeddings,
                ids,
                scores,
                budget=num_rows,
                threshold=threshold,
                center=center,
                mean=mean,
                earlier=earlier,
                device=device,
            )

        if lengths is not None:
            trace, is_met = walk_tokens(walk, lengths, budget)
        else:
            trace = walk(budget, None)
            is_met = trace.num_kept == budget
        return trace.num_seen if is_met else None

    # With a threshold of 1 nothing is rejected: the budget is full after as many rows.
    seen = budget if lengths is None else rows_within(lengths[walk_order(ids, scores)], budget)
    low, high, num_walks = int(np.floor(above * STEPS_PER_UNIT)), STEPS_PER_UNIT, 0
    most = (high - low - 1).bit_length()
    while high - low > 1:
        progress(num_walks, most)
        middle, num_walks = (low + high) // 2, num_walks + 1
        found = rows_seen(middle)
        low, high, seen = (middle, high, seen) if found is None else (low, middle, found)
    return SufficientThreshold(high / STEPS_PER_UNIT, seen, num_walks)
