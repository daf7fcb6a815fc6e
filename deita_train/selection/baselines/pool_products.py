"""Products of the whole pool with a few vectors, in blocks, for the methods that cover the pool."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from deita_train.data.texts import order_of_texts
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, UnitRows


def order_of_ids(ids: Sequence[str]) -> np.ndarray:
    """Positions `[N]` int64 of the rows sorted by id, in plain string order."""
    return order_of_texts(ids)


def first_alike(pool: UnitRows, order: np.ndarray) -> np.ndarray:
    """For each place of `order` the first place whose row has the same bits as a unit vector: `[N]` int64.

    The last bits of a product depend on where in a block its row stands. A method that gives every row the value of the
    first one like it treats copies alike, so that their ids decide and not the rounding.

    Memory: 16 bytes and a dictionary's entry for each distinct row, and one block of rows.
    """
    seen: dict[bytes, int] = {}
    first = np.empty(len(order), dtype=np.int64)
    for start in range(0, len(order), ROWS_PER_PASS):
        unit = pool.unit_rows(order[start : start + ROWS_PER_PASS], np.float32)
        unit += 0.0  # a zero has no sign
        for place, row in enumerate(unit, start=start):
            first[place] = seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), place)
    return first


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
