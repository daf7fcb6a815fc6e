"""GIST: rows that are good and far apart, with a guarantee: the best of the Repr Filter's walks at many thresholds.

Fahrbach et al. 2024, "GIST: Greedy Independent Set Thresholding for Max-Min Diversification with Submodular Utility"
(arXiv 2405.18754, algorithm 1).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from deita_train.selection.baselines.coverage import scaled_scores
from deita_train.selection.baselines.pool_products import products
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace, repr_filter, walk_order
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, UnitRows
from deita_train.selection.row_ids import order_of_ids

# The step between distance thresholds, epsilon of the paper: the result is at least 2/3 - epsilon of the best there is.
EPSILON = 0.1


def gist(candidates: Candidates, budget: int) -> Trace:
    """At most `budget` rows S that maximise (sum of q over S) / budget + w * div(S), to at least 2/3 - 0.1 of the best.

    div is the smallest distance between two rows of S, as unit vectors (0 to 2), and for a single row the largest
    distance in the pool. q is the score, scaled so that the pool's lowest is 0 and its highest 1. w is
    `distance_weight`, lambda of the paper. The sum is a linear utility, for which the paper's guarantee is 2/3 -
    epsilon. Dividing the sum by the budget and scaling q, which make w comparable between pools, are ours.

    For each distance d of a geometric series, rows are walked down by q, ties by id, and kept unless nearer than d to
    a kept one: the Repr Filter's walk at a similarity of 1 - d * d / 2. Of these walks, the one without a distance and
    the two rows that are farthest apart, the best by the sum above is taken; of equals the first. It may have fewer
    rows than the budget, where the distance between them is worth more. Ranks go by q.

    Costs N * N * D / 2 multiply-adds for the largest distance, and 33 walks of at most N * budget * D each. Memory:
    that of one walk. No smaller budget is a prefix of a larger one.
    """
    assert candidates.embeddings is not None
    weight, num_rows = candidates.settings.distance_weight, len(candidates.ids)
    quality = scaled_scores(candidates.scores)
    pair, diameter = _farthest_pair(candidates.unit_rows(), candidates.ids)

    def value_of(kept: np.ndarray, least_distance: float) -> float:
        return float(np.sort(quality[kept]).sum()) / budget + weight * least_distance

    kept, best = walk_order(candidates.ids, quality)[:0], -np.inf
    for similarity in _similarities(diameter):
        trace = repr_filter(
            candidates.embeddings,
            candidates.ids,
            quality,
            budget=budget,
            threshold=similarity,
            center=candidates.settings.center,
            mean=candidates.mean,
        )
        nearest = trace.nearest_similarity[trace.kept[1:]]
        distance = _distance(float(nearest.max())) if len(nearest) else diameter
        if value_of(trace.kept, distance) > best:
            kept, best = trace.kept, value_of(trace.kept, distance)
    if budget > 1 and num_rows > 1 and value_of(pair, diameter) > best:
        kept = pair[np.argsort(-quality[pair], kind="stable")]
    return trace_of(num_rows, kept)


def _similarities(diameter: float) -> Iterator[float]:
    """The highest similarity of each walk: all may be kept, then distances from epsilon / 2 to 1 of the diameter."""
    yield 1.0
    share = EPSILON / 2
    while diameter > 0 and share <= 1:
        yield max(1 - (share * diameter) ** 2 / 2, float(np.nextafter(-1, 0)))
        share *= 1 + EPSILON


def _distance(similarity: float) -> float:
    """The distance of two unit vectors of that cosine."""
    return float(np.sqrt(max(2 - 2 * similarity, 0)))


def _farthest_pair(pool: UnitRows, ids: Sequence[str]) -> tuple[np.ndarray, float]:
    """The positions `[2]` of the two rows that are farthest apart, the first by id, and their distance.

    Found by float32 products, so rows that differ by less than about 1e-6 may stand for each other.
    """
    order = order_of_ids(ids)
    lowest, pair = np.inf, order[:2]
    for start in range(0, len(order), ROWS_PER_PASS):
        rest = order[start:]
        rows = pool.unit_rows(rest[:ROWS_PER_PASS], np.float32)
        for block, similarity in products(pool, rows, rest):
            if (found := float(similarity.min())) < lowest:
                other, one = divmod(int(similarity.argmin()), len(rows))
                lowest, pair = found, np.array([rest[one], rest[block.start + other]])
    ends = pool.unit_rows(np.sort(pair), np.float64)
    return order[np.isin(order, pair)], _distance(float(np.float32(ends[0] @ ends[-1])))  # rounded as a trace is
