"""Measures of a subset's diversity, from the pool's embeddings and the positions of the chosen rows.

All compare unit vectors by their cosine. Products are float32, so a value is exact to about 1e-6; the Vendi score is
computed in float64. The pool is read in blocks and may be an `np.memmap`; memory holds the chosen rows as float32 unit
vectors, and one block with its similarities.
"""

from collections.abc import Iterator

import numpy as np
import torch

from deita_train.selection.repr_filter.unit_rows import UnitRows, full_float32_products

ROWS_PER_BLOCK = 1024


def blocks(num_rows: int, block_size: int) -> Iterator[slice]:
    """Slices of at most `block_size` that cover `num_rows` rows in order."""
    assert block_size >= 1, block_size
    for start in range(0, num_rows, block_size):
        yield slice(start, min(start + block_size, num_rows))


def unit_tensor(pool: UnitRows, positions: np.ndarray) -> torch.Tensor:
    """The rows at `positions` as unit vectors `[n, D]` float32."""
    return torch.from_numpy(pool.unit_rows(positions, np.float32))


def nearest_similarities(pool: UnitRows, chosen: np.ndarray, *, block_size: int = ROWS_PER_BLOCK) -> np.ndarray:
    """The highest cosine similarity of each chosen row to another chosen row.

    Costs n² D / 2 multiply-adds: each pair once.

    Args:
        pool: N rows.
        chosen: `[n]` int64, distinct positions in the pool.
        block_size: rows on either side of a matrix product; affects speed and memory only.

    Returns:
        `[n]` float64 in [-1, 1]; nan for a single row.
    """
    unit = unit_tensor(pool, chosen)
    nearest = torch.full((len(unit),), -torch.inf)
    with full_float32_products():
        for rows in blocks(len(unit), block_size):
            for others in blocks(len(unit), block_size):
                if others.start >= rows.start:
                    _merge_pair(nearest, unit, rows, others)
    return _within_range(nearest) if len(unit) > 1 else np.full(len(unit), np.nan)


def _merge_pair(nearest: torch.Tensor, unit: torch.Tensor, rows: slice, others: slice) -> None:
    similarity = unit[rows] @ unit[others].T
    if rows == others:
        similarity.fill_diagonal_(-torch.inf)
    nearest[rows] = torch.maximum(nearest[rows], similarity.amax(dim=1))
    nearest[others] = torch.maximum(nearest[others], similarity.amax(dim=0))


def mean_nearest_similarity(pool: UnitRows, chosen: np.ndarray, *, block_size: int = ROWS_PER_BLOCK) -> float:
    """Mean of `nearest_similarities`, in [-1, 1]: lower is more diverse, 1 where every row has a copy.

    Nan for a single row.
    """
    return float(nearest_similarities(pool, chosen, block_size=block_size).mean())


def highest_similarities(pool: UnitRows, chosen: np.ndarray, *, block_size: int = ROWS_PER_BLOCK) -> np.ndarray:
    """The cosine similarity of each row of the pool to the nearest chosen row.

    Costs N n D multiply-adds.

    Args:
        pool: N rows.
        chosen: `[n]` int64, distinct positions in the pool, at least one.
        block_size: rows on either side of a matrix product; affects speed and memory only.

    Returns:
        `[N]` float64 in [-1, 1]; 1 for the chosen rows themselves.
    """
    unit = unit_tensor(pool, chosen)
    highest = torch.full((len(pool),), -torch.inf)
    with full_float32_products():
        for rows in blocks(len(pool), block_size):
            block = unit_tensor(pool, np.arange(rows.start, rows.stop))
            for part in blocks(len(unit), block_size):
                highest[rows] = torch.maximum(highest[rows], (block @ unit[part].T).amax(dim=1))
    found = _within_range(highest)
    found[chosen] = 1.0  # whatever rounding makes of it
    return found


def facility_location(pool: UnitRows, chosen: np.ndarray, *, block_size: int = ROWS_PER_BLOCK) -> float:
    """How well the chosen rows represent the pool: the mean of `highest_similarities`, in [-1, 1], higher is better.

    This is the facility-location function of submodular selection (as in QDIT, Bukharin and Zhao 2023) divided by the
    number of rows of the pool. It never falls when a row is added, and is 1 for the whole pool. The selection method of
    this name counts negative similarities as 0; this measure does not.
    """
    return float(highest_similarities(pool, chosen, block_size=block_size).mean())


def vendi_score(pool: UnitRows, chosen: np.ndarray, *, block_size: int = ROWS_PER_BLOCK) -> float:
    """The effective number of distinct rows: exp of the entropy of the eigenvalues of K / n (Friedman and Dieng 2023).

    K `[n, n]` holds the cosine similarities. The nonzero eigenvalues of K / n are those of the second moment `[D, D]`
    of the unit vectors, so the smaller of the two matrices is decomposed, in float64. Memory: 8 min(n, D)² bytes. Time:
    n D min(n, D) multiply-adds and an eigenvalue decomposition of order min(n, D).

    Args:
        pool: N rows.
        chosen: `[n]` int64, distinct positions in the pool, at least one.
        block_size: rows read at once for the second moment; affects memory only.

    Returns:
        From 1 (all rows are equal) to min(n, D) (they are orthogonal, or spread evenly over all directions).
    """
    assert len(chosen), "no rows"
    small = len(chosen) <= pool.embeddings.shape[1]
    matrix = kernel(pool, chosen) if small else second_moment(pool, chosen, block_size=block_size)
    shares = np.linalg.eigvalsh(matrix)
    shares = shares[shares > 0]  # the others are 0, or rounded to less
    return float(np.exp(-(shares * np.log(shares)).sum()))


def kernel(pool: UnitRows, chosen: np.ndarray) -> np.ndarray:
    """The cosine similarities of n chosen rows divided by n: `[n, n]` float64, its trace 1."""
    unit = pool.unit_rows(chosen, np.float64)
    product: np.ndarray = unit @ unit.T
    return product / len(chosen)


def second_moment(pool: UnitRows, chosen: np.ndarray, *, block_size: int = ROWS_PER_BLOCK) -> np.ndarray:
    """The mean over n chosen rows of u uᵀ for the unit vector u: `[D, D]` float64, its trace 1."""
    total = np.zeros((pool.embeddings.shape[1],) * 2)
    for rows in blocks(len(chosen), block_size):
        unit = pool.unit_rows(chosen[rows], np.float64)
        total += unit.T @ unit
    return total / len(chosen)


def _within_range(similarities: torch.Tensor) -> np.ndarray:
    clipped: np.ndarray = similarities.numpy().astype(np.float64).clip(-1, 1)
    return clipped
