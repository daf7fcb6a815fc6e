"""A budget in training tokens: rows are kept in rank order until the next one would exceed it."""

from collections.abc import Callable

import numpy as np

from deita_train.errors import UserError
from deita_train.selection.repr_filter.repr_filter import Trace

# Selects that many rows, given the trace of an earlier call with fewer.
Walk = Callable[[int, Trace | None], Trace]


class FirstRowExceedsBudget(UserError):
    """The first row of a selection alone has more tokens than the budget."""


def rows_within(lengths: np.ndarray, tokens: int) -> int:
    """How many of the leading rows have at most `tokens` tokens together; `lengths` is `[K]` int64."""
    return int(np.searchsorted(lengths.cumsum(), tokens, side="right"))


def trained_lengths(num_tokens: np.ndarray, first_trained: np.ndarray, max_length: int | None) -> np.ndarray:
    """How many tokens of each row SFT reads: all up to `max_length`, none of a row without a loss.

    Args:
        num_tokens: `[N]` int64, uncut.
        first_trained: `[N]` int64, position of the first token with a loss, or -1.
        max_length: where SFT cuts; None when it does not.

    Returns:
        `[N]` int64.
    """
    limit = np.iinfo(np.int64).max if max_length is None else max_length
    is_trained = (first_trained >= 0) & (first_trained < limit)
    return np.where(is_trained, np.minimum(num_tokens, limit), 0)


def walk_tokens(walk: Walk, lengths: np.ndarray, tokens: int, earlier: Trace | None = None) -> tuple[Trace, bool]:
    """Select the longest prefix in rank order that has at most `tokens` tokens.

    Where it ends is known only once one more row is kept. So the walk goes to the number of rows that the mean length
    suggests, continues while tokens are left, and is cut to the prefix: the trace is that of `walk` with the number of
    rows found.

    Args:
        walk: gives the trace for a budget in rows; a smaller budget keeps the first rows of a larger one.
        lengths: `[N]` int64, tokens of each row.
        tokens: at least 1.
        earlier: the trace of `walk` for another number of rows, if that is known.

    Returns:
        The trace, and whether the budget is met: the next row would exceed it, or none of it is left.

    Raises:
        FirstRowExceedsBudget: the first row alone has more tokens.
    """
    trace, wanted = earlier, min(len(lengths), 1 + int(tokens / max(lengths.mean(), 1.0)))
    while True:
        if trace is None or trace.num_kept < wanted:
            trace = walk(wanted, trace)
        kept = lengths[trace.kept]
        within = rows_within(kept, tokens)
        if within < len(kept):
            break
        if len(kept) < wanted or wanted == len(lengths):
            if kept.sum() < tokens:
                return trace, False
            break
        left, mean = tokens - int(kept.sum()), max(kept.mean(), 1.0)
        wanted = min(len(lengths), len(kept) + 1 + int(1.1 * left / mean))
    if within == 0:
        raise FirstRowExceedsBudget(
            f"the budget is {tokens:,} tokens, and the first row of the selection alone has {kept[0]:,}; raise it."
        )
    return walk(within, trace), True
