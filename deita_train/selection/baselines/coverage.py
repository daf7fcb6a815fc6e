"""Methods that cover the pool: k-center and facility location, on the cosine of the embeddings.

A smaller budget keeps a prefix of a larger one. Products are taken in the order of the ids, so the order of the rows
does not matter. They are float32: rows that differ by less than about 1e-6 may come in either order, but always in the
same one for the same pool. Rows with equal unit vectors are treated alike, so the lowest id comes first.
"""

from collections.abc import Iterator

import numpy as np

from deita_train.selection.baselines.lazy_greedy import lazy_greedy
from deita_train.selection.baselines.pool_products import first_alike, products
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.repr_filter.unit_rows import UnitRows
from deita_train.selection.row_ids import order_of_ids


def k_center(candidates: Candidates, budget: int) -> Trace:
    """Greedy k-center: always the row farthest from its nearest kept row (Sener and Savarese 2018, core-set selection).

    The first row is the one with the best score where the pool has scores, else the one with the lowest id; ties go to
    the lowest id. The radius at which the kept rows cover the pool, as a distance of unit vectors, is at most twice the
    smallest possible. Outliers are far from everything and come early.

    Costs one pass over the pool for each kept row: budget * N * D multiply-adds. Memory: one block of rows.
    """
    pool, order = candidates.unit_rows(), order_of_ids(candidates.ids)
    kept = [_first_center(candidates, order)]
    alike = first_alike(pool, order)
    nearest = np.full(len(order), -np.inf, dtype=np.float32)  # highest similarity to a kept row, along `order`
    while len(kept) < budget:
        center = pool.unit_rows(order[kept[-1:]], np.float32)
        for block, similarity in products(pool, center, order):
            np.maximum(nearest[block], np.minimum(similarity[:, 0], 1), out=nearest[block])
        nearest[alike == alike[kept[-1]]] = 1
        left = nearest[alike]
        left[kept] = np.inf
        kept.append(int(left.argmin()))
    return trace_of(len(order), order[kept])


def _first_center(candidates: Candidates, order: np.ndarray) -> int:
    """The place in `order` of the row with the best score, ties by id; rows without a score come last."""
    if not candidates.has_scores:
        return 0
    return int(np.nan_to_num(candidates.scores[order], nan=-np.inf).argmax())


def facility_location(candidates: Candidates, budget: int) -> Trace:
    """Rows that represent the pool and are good: QDIT (Bukharin and Zhao 2023), by exact lazy greedy.

    Each step keeps the row with the highest (1 - w) * g + w * q, ties by id. g is the gain in facility location: how
    much the similarity of every row of the pool to its nearest kept row rises, summed over the pool. A similarity is
    the cosine, at least 0. The sum is not divided by N: a gain of 1 is that of a copy of one row that nothing
    represented. q is the score, scaled so that the pool's lowest is 0 and its highest 1 (all 0 where they are equal). w
    is `quality_weight`: 0 leaves the scores out. The paper states the same sum and tunes w; the scaling of q is ours.

    Costs N * D multiply-adds for each gain. The first kept row needs every row's gain, N * N * D, and later ones only
    the gains that may be the highest: nine times that in all for 300 of 20,000 rows in 200 equal clusters. At that rate
    300,000 rows of 4,096 numbers cost 3e15, about a day on one core. Memory: one block of rows with up to 1,024
    products each, and N numbers.
    """
    pool, order = candidates.unit_rows(), order_of_ids(candidates.ids)
    weight, coverage = candidates.settings.quality_weight, _Coverage(pool, order)
    quality = scaled_scores(candidates.scores[order]) if weight else np.zeros(len(order))

    def gains_of(rows: np.ndarray) -> np.ndarray:
        gains: np.ndarray = (1 - weight) * coverage.gains_of(rows) + weight * quality[rows]
        return gains

    kept = lazy_greedy(len(order), budget, gains_of, coverage.keep, coverage.alike)
    return trace_of(len(order), order[kept])


class _Coverage:
    """How similar each row of the pool is to the nearest kept row, at least 0: `[N]` float32 along `order`.

    `alike` says which rows are equal, and `represented` which of those a kept row is equal to: they gain nothing.
    """

    def __init__(self, pool: UnitRows, order: np.ndarray) -> None:
        self.pool = pool
        self.order = order
        self.nearest = np.zeros(len(order), dtype=np.float32)
        self.alike = first_alike(pool, order)
        self.represented = np.zeros(len(order), dtype=bool)

    def gains_of(self, rows: np.ndarray) -> np.ndarray:
        """By how much each of these rows of `order` would raise the sum: `[B]` float64."""
        distinct, place = np.unique(self.alike[rows], return_inverse=True)
        new = np.flatnonzero(~self.represented[distinct])
        gains = np.zeros(len(distinct))
        if len(new):
            for block, similarity in self._similarity(distinct[new]):
                similarity -= self.nearest[block, None]
                gains[new] += np.maximum(similarity, 0, out=similarity).sum(axis=0, dtype=np.float64)
        found: np.ndarray = gains[place]
        return found

    def keep(self, row: int) -> None:
        """Count a row of `order` as kept."""
        for block, similarity in self._similarity(np.array([row])):
            np.maximum(self.nearest[block], similarity[:, 0], out=self.nearest[block])
        self.represented[self.alike == self.alike[row]] = True

    def _similarity(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        return products(self.pool, self.pool.unit_rows(self.order[rows], np.float32), self.order)


def scaled_scores(scores: np.ndarray) -> np.ndarray:
    """Scores `[N]` from 0, the lowest, to 1, the highest; all 0 where they are equal."""
    spread = scores.max() - scores.min()
    scaled: np.ndarray = (scores - scores.min()) / (spread or 1.0)
    return scaled
