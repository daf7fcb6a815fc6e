"""Products of the whole pool with a few vectors, in blocks, for the methods that cover the pool."""

from collections.abc import Iterator, Sequence

import numpy as np

from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, UnitRows


def order_of_ids(ids: Sequence[str]) -> np.ndarray:
    """Positions `[N]` int64 of the rows sorted by id, in plain string order."""
    return np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)


def products(pool: UnitRows, vectors: np.ndarray, order: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Dot products of every unit row of the pool with K vectors, in blocks along `order`.

    Along the order of the ids, the products have the same bits whatever the order of the rows. Rows are multiplied as
    stored, in float32, and the mean and the norm are applied to the product: exact to about 1e-6, times the ratio of
    the norms before and after centring. Memory: one block and its products.

    Args:
        pool: N rows `[N, D]`.
        vectors: `[K, D]` float32.
        order: `[N]` int64, a permutation of the positions.

    Yields:
        A slice of `order` and the products `[B, K]` float32 of the rows there.
    """
    of_mean = None if pool.mean is None else vectors @ pool.mean
    for start in range(0, len(order), ROWS_PER_PASS):
        block = slice(start, min(start + ROWS_PER_PASS, len(order)))
        positions = order[block]
        found = pool.embeddings[positions].astype(np.float32, copy=False) @ vectors.T
        if of_mean is not None:
            found -= of_mean
        found /= pool.norms[positions, None]
        yield block, found
