"""NovelSum, a measure of diversity that weighs near rows and dense regions more (Yang et al. 2025, arXiv 2502.17184).

The novelty of a chosen row i is its density factor times a weighted mean of its cosine distances to the other chosen
rows, the nearest of which has the greatest weight; NovelSum is the mean novelty:

    NovelSum = 1/n sum_i f_i (sum_r r^-p d_i(r)) / (sum_r r^-p)        r = 1 .. n - 1
    f_i      = (mean of the squared distances to the K nearest rows of the pool + e)^-q

d_i(r) is the distance 1 - cosine from i to the r-th nearest other chosen row. The density factor is larger where the
pool is dense, so a distance counts more there. Formula and constants, p = 1, q = 0.5, K = 10, e = 1e-9, are those of
the authors' program (UmeanNever/NovelSum) with its recommended settings, not of the paper. For the density factor the
program uses squared distances of the embeddings as stored; here all vectors are unit vectors. In its first version,
which its authors say is the paper's, a row is its own nearest neighbour: `with_self`.
"""

import hashlib

import numpy as np
import torch

from deita_train.selection.measures.diversity import ROWS_PER_BLOCK, blocks, unit_tensor
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, UnitRows, full_float32_products

# How many chosen rows are processed at once: sorting their distances to all others, measuring their neighbours.
ROWS_PER_SORT = 256
ROWS_PER_GATHER = 64


def novel_sum(
    pool: UnitRows,
    chosen: np.ndarray,
    density_factors: np.ndarray,
    *,
    proximity_power: float = 1.0,
    with_self: bool = False,
    block_size: int = ROWS_PER_SORT,
) -> float:
    """NovelSum of the chosen rows: 0 where all are equal, higher is more diverse, without an upper bound.

    Costs n² D multiply-adds and the sorting of n rows of n distances.

    Args:
        pool: N rows.
        chosen: `[n]` int64, distinct positions in the pool.
        density_factors: `[n]` float64, one for each chosen row; ones ignore the density.
        proximity_power: p, the power of the rank in the weights; 0 weighs all distances equally.
        with_self: whether a row is its own first neighbour, at distance 0, so that the nearest other row has the
            weight 2^-p.
        block_size: rows whose distances are sorted at once; affects speed and memory (12 n bytes a row) only.

    Returns:
        A float64; nan for a single row, which has no distance.
    """
    assert density_factors.shape == chosen.shape, f"{density_factors.shape} factors for {chosen.shape} rows"
    if len(chosen) < 2:
        return float("nan")
    unit = unit_tensor(pool, chosen)
    ranks = np.arange(2 if with_self else 1, len(chosen) + (1 if with_self else 0), dtype=np.float64)
    weights = ranks**-proximity_power
    total = 0.0
    for rows in blocks(len(unit), block_size):
        novelty = _sorted_distances(unit, rows) @ weights
        total += float(density_factors[rows] @ novelty)
    return total / len(chosen) / float(weights.sum() + with_self)


def _sorted_distances(unit: torch.Tensor, rows: slice) -> np.ndarray:
    """Cosine distances of some of the n rows to the n - 1 others, ascending: `[B, n - 1]` float64."""
    with full_float32_products():
        distance = 1 - unit[rows] @ unit.T
    distance.clamp_(min=0)
    distance[torch.arange(rows.stop - rows.start), torch.arange(rows.start, rows.stop)] = torch.inf
    ascending: np.ndarray = distance.sort(dim=1).values[:, :-1].numpy().astype(np.float64)
    return ascending


def density_factors(
    pool: UnitRows,
    chosen: np.ndarray,
    *,
    num_neighbours: int = 10,
    density_power: float = 0.5,
    floor: float = 1e-9,
    block_size: int = ROWS_PER_BLOCK,
) -> np.ndarray:
    """How dense the pool is around each chosen row: (mean squared distance to its nearest rows + floor)^-power.

    Rows of the pool that are equal in every number count once, and a row is no neighbour of itself. Float32 products
    find the neighbours; their squared distances (between unit vectors: 2 - 2 cosine) are then taken in float64, because
    float32 does not resolve those of near-duplicates. Costs N n D multiply-adds.

    Args:
        pool: N rows.
        chosen: `[n]` int64, distinct positions in the pool.
        num_neighbours: K, of as many as the pool has.
        density_power: q; 0 gives ones.
        floor: e, which bounds the factor of a row whose neighbours coincide with it.
        block_size: rows of the pool per matrix product; affects speed and memory only.

    Returns:
        `[n]` float64 above 0; nan where all rows of the pool are equal, so that there is no neighbour.
    """
    assert num_neighbours >= 1, num_neighbours
    distinct = distinct_rows(pool.embeddings)
    num_found = min(num_neighbours, len(distinct) - 1)
    if num_found == 0:
        return np.full(len(chosen), np.nan)
    candidates = distinct[_nearest_columns(pool, chosen, distinct, num_found + 1, block_size)]
    distances = _squared_distances(pool, chosen, candidates)
    distances.sort(axis=1)  # the first is that of the row itself, or of its equal
    factors: np.ndarray = (distances[:, 1:].mean(axis=1) + floor) ** -density_power
    return factors


def distinct_rows(embeddings: np.ndarray) -> np.ndarray:
    """Positions `[M]` int64, ascending, of the rows `[N, D]` that equal no earlier one in every number."""
    first: dict[bytes, int] = {}
    for rows in blocks(len(embeddings), ROWS_PER_PASS):
        positive_zeros = embeddings[rows] + np.zeros(1, dtype=embeddings.dtype)  # -0.0 equals 0.0
        for position, row in enumerate(positive_zeros, start=rows.start):
            first.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), position)
    return np.fromiter(first.values(), dtype=np.int64, count=len(first))


def _nearest_columns(
    pool: UnitRows, chosen: np.ndarray, others: np.ndarray, num_nearest: int, block_size: int
) -> np.ndarray:
    """The places in `others` `[M]` of the rows most similar to each chosen row: `[n, num_nearest]` int64."""
    unit = unit_tensor(pool, chosen)
    best = torch.empty((len(unit), 0))
    places = torch.empty((len(unit), 0), dtype=torch.int64)
    with full_float32_products():
        for rows in blocks(len(others), block_size):
            similarity = unit @ unit_tensor(pool, others[rows]).T
            found = similarity.topk(min(num_nearest, similarity.shape[1]), dim=1)
            best, places = torch.cat([best, found.values], 1), torch.cat([places, rows.start + found.indices], 1)
            best, order = best.topk(min(num_nearest, best.shape[1]), dim=1)
            places = places.gather(1, order)
    nearest: np.ndarray = places.numpy()
    return nearest


def _squared_distances(pool: UnitRows, chosen: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Squared distances `[n, K]` float64 between the unit vectors of chosen rows and their neighbours `[n, K]`."""
    distances = np.empty(neighbours.shape)
    for rows in blocks(len(chosen), ROWS_PER_GATHER):
        near = pool.unit_rows(neighbours[rows].reshape(-1), np.float64).reshape(*neighbours[rows].shape, -1)
        difference = near - pool.unit_rows(chosen[rows], np.float64)[:, None, :]
        distances[rows] = np.square(difference, out=difference).sum(axis=2)
    return distances
