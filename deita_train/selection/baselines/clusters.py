"""k-means over the pool's unit vectors, and the best rows of each cluster."""

import numpy as np
from scipy import sparse

from deita_train.errors import UserError
from deita_train.selection.baselines.pool_products import first_alike, products
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.cost import default_clusters
from deita_train.selection.repr_filter.repr_filter import Trace, walk_order
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, UnitRows
from deita_train.selection.row_ids import order_of_ids

# Most runs end earlier, when no row changes its cluster.
MAX_ROUNDS = 100


def kmeans(candidates: Candidates, budget: int) -> Trace:
    """The best rows of each k-means cluster, as many as its share of the pool.

    The number of clusters defaults to sqrt(N / 2), as in CaR (Clustering and Ranking, Ge et al. 2024). Each cluster has
    a quota by its size, as in kMQ (Yu et al. 2024, "Diversify and Conquer"), by largest remainders. Within a cluster
    the best rows by `score` are kept, ties by id; kMQ draws them with a probability by quality, and CaR takes the same
    number from every cluster. Ranks go by score over all kept rows. A smaller budget does not keep a prefix of a larger
    one: a quota may even fall when the budget rises by one.

    Costs (1 + rounds) * clusters * N * D multiply-adds; memory: the centres and one block of rows.

    Raises:
        UserError: there are fewer rows than clusters.
    """
    labels = cluster_labels(candidates, candidates.settings.clusters, candidates.settings.seed)
    left = quotas(np.bincount(labels), budget)
    kept = []
    for position in walk_order(candidates.ids, candidates.scores):
        if left[labels[position]]:
            left[labels[position]] -= 1
            kept.append(position)
    return trace_of(len(labels), kept)


def cluster_labels(candidates: Candidates, clusters: int | None, seed: int | None) -> np.ndarray:
    """The k-means cluster of each row, `[N]` int64, from k-means++ starts that follow from the seed.

    Raises:
        UserError: there are fewer rows than clusters.
    """
    pool, order = candidates.unit_rows(), order_of_ids(candidates.ids)
    alike, rng = first_alike(pool, order), np.random.default_rng(seed)
    starts = _spread_out(pool, order, alike, _number_of_clusters(len(order), clusters), rng)
    labels = np.empty(len(order), dtype=np.int64)
    labels[order] = lloyd(pool, order, pool.unit_rows(order[starts], np.float32))[alike]
    return labels


def _number_of_clusters(num_rows: int, clusters: int | None) -> int:
    wanted = clusters or default_clusters(num_rows)
    if wanted > num_rows:
        raise UserError(f"clusters is {wanted}, and there are only {num_rows} rows; ask for fewer clusters.")
    return wanted


def _spread_out(
    pool: UnitRows, order: np.ndarray, alike: np.ndarray, number: int, rng: np.random.Generator
) -> list[int]:
    """Places in `order` to start from, by k-means++ (Arthur and Vassilvitskii 2007), which prefers distant rows.

    Fewer than `number` where the pool has fewer distinct rows.
    """
    starts = [int(rng.integers(len(order)))]
    squared_distance = np.full(len(order), np.inf)
    while len(starts) < number:
        latest = pool.unit_rows(order[starts[-1:]], np.float32)
        for block, product in products(pool, latest, order):
            distance = np.maximum(2 - 2 * product[:, 0].astype(np.float64), 0)
            np.minimum(squared_distance[block], distance, out=squared_distance[block])
        squared_distance[np.isin(alike, alike[starts])] = 0
        sums = squared_distance.cumsum()
        if sums[-1] == 0:
            break
        starts.append(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")))
    return starts


def lloyd(pool: UnitRows, order: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The cluster of each row: Lloyd's algorithm on unit vectors, until no row changes its cluster or 100 rounds.

    Args:
        pool: N rows.
        order: `[N]` int64 positions, along which sums are taken.
        centres: `[K, D]` float32 to start from. A centre that no row is nearest to stays where it is.

    Returns:
        `[N]` int64 cluster numbers along `order`; of equally near centres the first.
    """
    labels = np.full(len(order), -1, dtype=np.int64)
    for _ in range(MAX_ROUNDS):
        before = labels.copy()
        for block, product in products(pool, centres, order):
            # The nearest centre c has the highest x.c - c.c / 2.
            labels[block] = (product - np.square(centres).sum(axis=1) / 2).argmax(axis=1)
        if (labels == before).all():
            break
        centres = _means(pool, order, labels, centres)
    return labels


def _means(pool: UnitRows, order: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    sums = np.zeros(centres.shape)
    for start in range(0, len(order), ROWS_PER_PASS):
        block = slice(start, start + ROWS_PER_PASS)
        unit, of_block = pool.unit_rows(order[block], np.float32), labels[block]
        membership = sparse.csr_array((np.ones(len(unit), np.float32), of_block, np.arange(len(unit) + 1)))
        sums[: of_block.max() + 1] += membership.T @ unit
    sizes = np.bincount(labels, minlength=len(centres))[:, None]
    means: np.ndarray = np.where(sizes, sums / np.maximum(sizes, 1), centres).astype(np.float32)
    return means


def quotas(sizes: np.ndarray, budget: int) -> np.ndarray:
    """How many of `budget` rows each cluster gets, by largest remainders, ties to the first cluster.

    Args:
        sizes: `[K]` int64, rows of each cluster.
        budget: rows, at most the sum of the sizes.

    Returns:
        `[K]` int64, none above its size; their sum is the budget.
    """
    whole, remainders = np.divmod(sizes * budget, sizes.sum())
    favoured = np.argsort(-remainders, kind="stable")[: budget - whole.sum()]
    whole[favoured] += 1
    return whole
