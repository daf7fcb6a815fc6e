"""The Repr Filter: score-first, diversity-aware selection (paper 2.5), with exact sequential semantics.

The public code tests a batch of candidates at once, so that its result depends on the batch size. Here the outcome is
that of testing one candidate after the other, whatever the block size and whatever the order of the input rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deita_train.errors import UserError
from deita_train.selection.unit_rows import ROWS_PER_PASS, UnitRows, full_float32_products, name_rows

# A float32 similarity this close to the threshold, or to the runner-up, is computed again in float64.
FLOAT32_DOUBT = 1e-5
# Kept rows per matrix product, a constant, so that no result depends on block_size.
KEPT_PER_PRODUCT = 4096


@dataclass(frozen=True)
class Trace:
    """What the walk decided about each of the N rows, in the order of the input.

    Attributes:
        selection_rank: ``[N]`` int64, 0 for the first row kept, -1 for a row that is not selected.
        nearest_similarity: ``[N]`` float32, cosine similarity to the nearest row kept before this one; nan for the
            first kept row and for rows that the walk did not reach.
        blocked_by: ``[N]`` int64, for a rejected row the position of that nearest kept row (the earliest kept of
            equals), -1 for every other row.
    """

    selection_rank: np.ndarray
    nearest_similarity: np.ndarray
    blocked_by: np.ndarray

    @classmethod
    def empty(cls, num_rows: int) -> "Trace":
        """The trace of a walk over ``num_rows`` rows that has not begun."""
        return cls(
            selection_rank=np.full(num_rows, -1, dtype=np.int64),
            nearest_similarity=np.full(num_rows, np.nan, dtype=np.float32),
            blocked_by=np.full(num_rows, -1, dtype=np.int64),
        )


def walk_order(ids: Sequence[str], scores: np.ndarray) -> np.ndarray:
    """Positions ``[N]`` int64 of the rows by score descending, equal scores by id ascending (plain string order).

    Raises:
        UserError: a score is nan.
    """
    scores = np.asarray(scores, dtype=np.float64)
    assert scores.shape == (len(ids),), f"{len(ids)} ids for scores of shape {scores.shape}"
    assert len(set(ids)) == len(ids), "row ids are not unique"
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        raise UserError(
            f"{len(missing)} of {len(ids)} rows have no score to be ranked by: {name_rows(ids, missing)}. "
            "Score these rows, or remove them from the pool."
        )
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    return by_id[np.argsort(-scores[by_id], kind="stable")]


def repr_filter(
    embeddings: np.ndarray,
    ids: Sequence[str],
    scores: np.ndarray,
    *,
    budget: int | None,
    threshold: float,
    center: bool = False,
    block_size: int = 1024,
) -> Trace:
    """Walk the pool from the best score down and keep what is not too similar to the rows kept so far (paper 2.5).

    Decision rule. A row is rejected if its highest cosine similarity to the rows kept before it is strictly greater
    than ``threshold``; one that equals the threshold is kept. The similarity that decides is a float32 matrix product;
    where that lies within 1e-5 of the threshold, the decision is taken again in float64: each embedding is converted to
    float64 (and centred) and divided by its norm, the products of two such vectors are summed over D in the fixed order
    of numpy's row sum, and the sum is compared with ``threshold`` as a float64. "Equals" therefore means equal after
    this rounding: (1, 0) and (3, 4) have similarity 0.6 exactly and pass a threshold of 0.6, while (0.6, 0.8) stored as
    float32 is a slightly different direction and does not. Similarities are clipped to [-1, 1], so a threshold of 1 or
    more rejects nothing. The paper calls the quantity a distance; its code and its authors use the similarity.

    The result depends neither on ``block_size`` nor on the order of the input rows (``nearest_similarity`` to within
    1e-6). The pool is read in blocks; memory holds the kept rows in float32, one block and its similarities.

    Args:
        embeddings: ``[N, D]`` float32 or float16, ``np.memmap`` allowed; need not be normalised.
        ids: N unique row ids.
        scores: ``[N]`` float64, the evol scores.
        budget: stop when this many rows are kept; ``None`` walks the whole pool.
        threshold: tau of the paper (0.9 there), greater than -1.
        center: subtract the pool's mean (accumulated in float64) from every embedding first. Not in the paper.
        block_size: rows per matrix product; affects speed and memory only.

    Raises:
        UserError: ``threshold`` or ``budget`` out of range, a nan score, or embeddings that are not finite or have no
            direction (norm below 1e-12, after centring if that is asked), named by id.
    """
    _check_arguments(budget, threshold, block_size)
    order = walk_order(ids, scores)
    pool = UnitRows.measure(embeddings, ids, center=center, order=order)
    walk = _Walk(pool, len(ids) if budget is None else min(budget, len(ids)), float(threshold), budget is not None)
    with full_float32_products():
        for start in range(0, len(order), block_size):
            if walk.num_kept == walk.budget:
                break
            walk.take(order[start : start + block_size])
    return walk.trace


def _check_arguments(budget: int | None, threshold: float, block_size: int) -> None:
    assert block_size >= 1, block_size
    if not threshold > -1:
        raise UserError(
            f"threshold is {threshold}; it is a cosine similarity and must be greater than -1 (the paper uses 0.9; "
            "1 or more switches the diversity filter off)."
        )
    if budget is not None and budget < 1:
        raise UserError(f"budget is {budget}; it must be at least 1, or left out to walk the whole pool.")


class _Nearest:
    """The nearest kept row of each of B rows: its similarity, the runner-up's similarity, its selection rank."""

    def __init__(self, num_rows: int) -> None:
        self.similarity = np.full(num_rows, -np.inf)
        self.runner_up = np.full(num_rows, -np.inf)
        self.rank = np.full(num_rows, -1, dtype=np.int64)

    def merge(self, rows: slice, similarity: np.ndarray, rank: np.ndarray | int, runner_up: np.ndarray | None) -> None:
        """Add, for ``rows``, kept rows of which the nearest has ``similarity`` and ``rank``; later ranks come later."""
        similarity = similarity.clip(-1, 1)
        closer = similarity > self.similarity[rows]
        self.runner_up[rows] = np.maximum(self.runner_up[rows], np.minimum(self.similarity[rows], similarity))
        if runner_up is not None:
            self.runner_up[rows] = np.maximum(self.runner_up[rows], runner_up)
        self.similarity[rows] = np.maximum(self.similarity[rows], similarity)
        self.rank[rows] = np.where(closer, rank, self.rank[rows])


class _Walk:
    """The state of the walk: the unit vectors kept so far, their positions, and the trace."""

    def __init__(self, pool: UnitRows, budget: int, threshold: float, allocate_budget: bool) -> None:
        self.pool = pool
        self.budget = budget
        self.threshold = threshold
        self.trace = Trace.empty(len(pool.norms))
        self.num_kept = 0
        self.kept_positions = np.empty(budget, dtype=np.int64)
        capacity = budget if allocate_budget else min(budget, ROWS_PER_PASS)
        self.kept = torch.empty((capacity, pool.embeddings.shape[1]), dtype=torch.float32)

    def take(self, positions: np.ndarray) -> None:
        """Decide on the next rows of the walk, in order, until the budget is reached."""
        unit = torch.from_numpy(self.pool.unit_rows(positions, np.float32))
        nearest = self._nearest_kept(unit)
        # Only these can be kept, so only to these do other rows of the block need a similarity.
        open_rows = np.flatnonzero(nearest.similarity <= self.threshold + 2 * FLOAT32_DOUBT)
        within = (unit[torch.from_numpy(open_rows)] @ unit.T).numpy()
        open_index = {int(row): index for index, row in enumerate(open_rows)}
        for row, position in enumerate(positions):
            if self._in_doubt(nearest.similarity[row], nearest.runner_up[row]):
                nearest.similarity[row], nearest.rank[row] = self._nearest_in_float64(unit[row], position)
            self._record(position, nearest.similarity[row], nearest.rank[row])
            if nearest.similarity[row] <= self.threshold:
                self._keep(unit[row], position)
                if self.num_kept == self.budget:
                    return
                later = slice(row + 1, None)
                nearest.merge(later, within[open_index[row], later], self.num_kept - 1, runner_up=None)

    def _nearest_kept(self, unit: torch.Tensor) -> _Nearest:
        """The nearest of the kept rows for each row of ``unit`` ``[B, D]``, by float32 products."""
        nearest = _Nearest(len(unit))
        for start in range(0, self.num_kept, KEPT_PER_PRODUCT):
            similarity = unit @ self.kept[start : min(start + KEPT_PER_PRODUCT, self.num_kept)].T
            highest, index = similarity.max(dim=1)
            runner_up = similarity.scatter_(1, index[:, None], -torch.inf).amax(dim=1)
            nearest.merge(slice(None), highest.numpy(), start + index.numpy(), runner_up.numpy())
        return nearest

    def _in_doubt(self, similarity: float, runner_up: float) -> bool:
        """Whether float32 could err on the decision, or on which kept row a rejected row is blocked by."""
        if self.threshold >= 1:
            return False
        tied = similarity > self.threshold and runner_up >= similarity - FLOAT32_DOUBT
        return tied or abs(similarity - self.threshold) <= FLOAT32_DOUBT

    def _nearest_in_float64(self, unit_row: torch.Tensor, position: int) -> tuple[float, int]:
        """Similarity to the nearest kept row, and its rank, from float64 unit vectors; the earliest kept of equals."""
        similarity = (self.kept[: self.num_kept] @ unit_row).numpy()
        ranks = np.flatnonzero(similarity >= similarity.max() - FLOAT32_DOUBT)
        candidate = self.pool.unit_rows(np.array([position]), np.float64)
        exact = (self.pool.unit_rows(self.kept_positions[ranks], np.float64) * candidate).sum(axis=1).clip(-1, 1)
        best = int(exact.argmax())
        return float(exact[best]), int(ranks[best])

    def _record(self, position: int, similarity: float, rank: int) -> None:
        if self.num_kept:
            self.trace.nearest_similarity[position] = similarity
        if similarity > self.threshold:
            self.trace.blocked_by[position] = self.kept_positions[rank]

    def _keep(self, unit_row: torch.Tensor, position: int) -> None:
        if self.num_kept == len(self.kept):
            grown = torch.empty((min(2 * len(self.kept), self.budget), self.kept.shape[1]), dtype=torch.float32)
            grown[: self.num_kept] = self.kept
            self.kept = grown
        self.kept[self.num_kept] = unit_row
        self.kept_positions[self.num_kept] = position
        self.trace.selection_rank[position] = self.num_kept
        self.num_kept += 1
