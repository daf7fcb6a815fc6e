"""Greedy maximisation of a function whose gains only shrink as rows are kept, without recomputing every gain."""

from collections.abc import Callable

import numpy as np

# The cost of a block is that of reading the pool, up to about the first size.
_FIRST_BLOCK, _LARGEST_BLOCK = 64, 1024


def lazy_greedy(
    num_rows: int,
    budget: int,
    gains_of: Callable[[np.ndarray], np.ndarray],
    keep: Callable[[int], None],
    alike: np.ndarray | None = None,
) -> list[int]:
    """The first `budget` rows of a greedy walk, which always takes the row with the highest gain, ties to the first.

    An earlier gain is an upper bound of the present one (Minoux 1978), so only rows whose bound reaches the best gain
    are recomputed, in blocks that double until the best row is certain. The result is that of recomputing every gain,
    provided that `gains_of` gives a row the same value in any block. Where its last bits depend on the block, `alike`
    keeps rows together that must not be told apart by them.

    Args:
        num_rows: rows 0 to num_rows - 1.
        budget: rows to keep, at most `num_rows`.
        gains_of: gains `[B]` float64 of rows `[B]`, given the rows kept so far; a row's gain never grows.
        keep: called with each row that is kept.
        alike: `[num_rows]` int64, equal for rows whose gains are computed together; None where that does not matter.

    Returns:
        The kept rows in order.
    """
    bounds = np.full(num_rows, np.inf)
    computed_at = np.full(num_rows, -1)
    kept: list[int] = []
    while len(kept) < budget:
        block_size = _FIRST_BLOCK
        while computed_at[best := int(bounds.argmax())] != len(kept):
            rows = _highest(np.where(computed_at == len(kept), -np.inf, bounds), block_size)
            if alike is not None:
                rows = np.flatnonzero(np.isin(alike, alike[rows]) & (bounds > -np.inf))
            bounds[rows], computed_at[rows] = gains_of(rows), len(kept)
            block_size = min(2 * block_size, _LARGEST_BLOCK)
        keep(best)
        kept.append(best)
        bounds[best] = -np.inf
    return kept


def _highest(bounds: np.ndarray, number: int) -> np.ndarray:
    """Positions, ascending, of the `number` highest bounds, without those of -inf."""
    rows = np.arange(len(bounds)) if number >= len(bounds) else np.sort(np.argpartition(bounds, -number)[-number:])
    return rows[bounds[rows] > -np.inf]
