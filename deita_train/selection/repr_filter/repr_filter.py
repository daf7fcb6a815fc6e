"""The Repr Filter: score-first, diversity-aware selection (paper 2.5), with exact sequential semantics.

The public code tests a batch of candidates at once, so that its result depends on the batch size. Here the outcome is
that of testing one candidate after the other, bit by bit, whatever the block size, the device, the number of ranks and
the order of the input rows. Why that is so:

1. Every number of the trace is defined by exact cosines (``ExactRows``): float64 values that depend on two rows and the
   pool's mean alone. A row is rejected if its highest exact cosine to the rows kept before it is above the threshold;
   its nearest kept row is the one of that highest cosine, the earliest of equals; that cosine is what is reported.
2. Float32 matrix products only say where to look. Their similarities are taken to be within 5e-6 of the exact ones, a
   hundred times what their rounding comes to. So a kept row whose float32 similarity is more than 1e-5 below the
   highest is not the nearest, and a float32 similarity more than 1e-5 from the threshold is on the right side of it.
   Everything in between is computed exactly (``KeptRows.nearest_exactly``, ``within_block``).
3. A block's rows are first compared with the rows kept before the block, exactly; the rows that this does not reject
   are open. A table then says exactly which pairs of open rows are too similar, and the sequential step of the paper
   only reads this table (``sequential_step``): an open row is kept unless it conflicts with an earlier one that is
   kept. A row without a conflict is kept whatever becomes of the others, and needs no step of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deita_train.errors import UserError
from deita_train.selection.repr_filter.exact_rows import ExactRows
from deita_train.selection.repr_filter.kept_rows import FLOAT32_DOUBT, KeptRows, Nearest
from deita_train.selection.repr_filter.process_group import Group, OneProcess
from deita_train.selection.repr_filter.scratch import Scratch
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, full_float32_products, name_rows
from deita_train.selection.repr_filter.within_block import rows_at, sequential_step, with_later
from deita_train.selection.row_ids import order_of_ids

# Towards the end of the budget blocks are no larger than what is still wanted, and no smaller than this.
SMALLEST_BLOCK = 128


@dataclass(frozen=True)
class Trace:
    """What the walk decided about each of the N rows, in the order of the input.

    Attributes:
        selection_rank: ``[N]`` int64, 0 for the first row kept, -1 for a row that is not selected.
        nearest_similarity: ``[N]`` float32, cosine similarity to the nearest row kept before this one, taken in float64
            and rounded; nan for the first kept row and for rows that the walk did not reach.
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

    def within(self, positions: np.ndarray, num_rows: int) -> "Trace":
        """The same decisions on the rows at ``positions`` ``[N]`` of a pool; its other rows are not reached."""
        pool = Trace.empty(num_rows)
        pool.selection_rank[positions] = self.selection_rank
        pool.nearest_similarity[positions] = self.nearest_similarity
        pool.blocked_by[positions] = np.where(self.blocked_by >= 0, positions[self.blocked_by], -1)
        return pool

    @property
    def num_kept(self) -> int:
        """How many rows are kept."""
        return int((self.selection_rank >= 0).sum())

    @property
    def num_seen(self) -> int:
        """How many rows the walk decided on: those kept and those rejected."""
        return self.num_kept + int((self.blocked_by >= 0).sum())

    @property
    def kept(self) -> np.ndarray:
        """Positions of the kept rows in the order of selection, int64."""
        positions = np.flatnonzero(self.selection_rank >= 0)
        return positions[np.argsort(self.selection_rank[positions])]


def walk_order(ids: Sequence[str], scores: np.ndarray) -> np.ndarray:
    """Positions ``[N]`` int64 of the rows by score descending, equal scores by id ascending (plain string order).

    Raises:
        UserError: a score is nan.
    """
    scores = np.asarray(scores, dtype=np.float64)
    assert scores.shape == (len(ids),), f"{len(ids)} ids for scores of shape {scores.shape}"
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        raise UserError(
            f"{len(missing)} of {len(ids)} rows have no score to be ranked by: {name_rows(ids, missing)}. "
            "Score these rows, or remove them from the pool."
        )
    by_id = order_of_ids(ids)
    # Torch sorts on all its threads.
    return by_id[torch.from_numpy(-scores[by_id]).argsort(stable=True).numpy()]


def cut_trace(trace: Trace, order: np.ndarray, budget: int) -> Trace:
    """The trace that the same walk leaves at a smaller budget: rows after the last one kept count as not reached.

    Bit by bit what ``repr_filter`` gives for the same rows, scores, threshold and centring with this ``budget``, so
    that one walk to the largest budget of a sweep, or over the whole pool, serves every smaller one.

    Args:
        trace: of a walk that kept at least ``budget`` rows, or that saw the whole pool.
        order: ``[N]`` int64, ``walk_order`` of the same rows.
        budget: rows to keep at most, 1 or more.
    """
    assert len(order) == len(trace.selection_rank), f"an order of {len(order)} rows for {len(trace.selection_rank)}"
    if trace.num_kept < budget or not len(order):
        assert trace.num_seen == len(order), f"{trace.num_kept} rows are kept so far: continue the walk for {budget}"
        return trace
    last = int(np.flatnonzero(trace.selection_rank[order] == budget - 1)[0])
    seen, cut = order[: last + 1], Trace.empty(len(order))
    cut.selection_rank[seen] = trace.selection_rank[seen]
    cut.nearest_similarity[seen] = trace.nearest_similarity[seen]
    cut.blocked_by[seen] = trace.blocked_by[seen]
    return cut


def repr_filter(
    embeddings: np.ndarray,
    ids: Sequence[str],
    scores: np.ndarray,
    *,
    budget: int | None,
    threshold: float,
    center: bool = False,
    mean: np.ndarray | None = None,
    earlier: Trace | None = None,
    block_size: int = 512,
    device: torch.device | str = "cpu",
    group: Group | None = None,
) -> Trace:
    """Walk the pool from the best score down and keep what is not too similar to the rows kept so far (paper 2.5).

    Decision rule. A row is rejected if its highest cosine similarity to the rows kept before it is strictly greater
    than ``threshold``; one that equals the threshold is kept. The similarity is the float64 value that ``ExactRows``
    defines. "Equals" therefore means equal after this rounding: (1, 0) and (3, 4) have similarity 0.6 exactly and pass
    a threshold of 0.6, while (0.6, 0.8) stored as float32 is a slightly different direction and does not. Similarities
    are clipped to [-1, 1], so a threshold of 1 or more rejects nothing. The paper calls the quantity a distance; its
    code and its authors use the similarity.

    To the last bit the trace depends on none of ``block_size``, ``device``, ``group`` and the order of the input rows:
    the head of this module says why. The pool is read in blocks; memory holds the kept rows in float32 (of several
    ranks, each holds its share), one block and its similarities, and three numbers for each row of the pool.

    Args:
        embeddings: ``[N, D]`` float32 or float16, ``np.memmap`` allowed; need not be normalised.
        ids: N unique row ids.
        scores: ``[N]`` float64, the evol scores.
        budget: stop when this many rows are kept; ``None`` walks the whole pool.
        threshold: tau of the paper (0.9 there), greater than -1.
        center: subtract the pool's mean (accumulated in float64) from every embedding first. Not in the paper.
        mean: ``[D]`` float64, the pool's mean where the rows are only a part of the pool; None for that of the rows.
        earlier: the trace of a walk over the same rows, scores and threshold, centred or not as this one, that ended at
            its budget or at the end of the pool: the walk goes on after the last row that was seen, and the trace is
            bit by bit that of one undisturbed walk. Where ``budget`` asks for no more rows than it kept, it is cut
            (``cut_trace``).
        block_size: rows per matrix product; affects speed and memory only.
        device: where the kept rows are held and multiplied, "cpu" or a CUDA device. All that is decided in float64, and
            the step from row to row, is the CPU's in any case.
        group: the processes that all call this with the same arguments and share the kept rows; None for this one
            alone. Each gets the whole trace.

    Raises:
        UserError: ``threshold`` or ``budget`` out of range, a nan score, or embeddings that are not finite or have no
            direction (norm below 1e-12, after centring if that is asked), named by id.
    """
    _check_arguments(budget, threshold, block_size)
    order = walk_order(ids, scores)
    group = OneProcess() if group is None else group
    rows = ExactRows.check(embeddings, ids, center=center, order=order, group=group, mean=mean)
    budget = len(ids) if budget is None else min(budget, len(ids))
    if earlier is not None:
        _check_earlier(earlier, order)
        if earlier.num_kept >= budget or earlier.num_seen == len(order):
            return cut_trace(earlier, order, budget)
    with full_float32_products():
        walk = _Walk(rows, budget, float(threshold), device, group)
        if earlier is not None:
            walk.resume(earlier)
        while walk.num_kept < budget and walk.num_seen < len(order):
            size = min(block_size, max(SMALLEST_BLOCK, budget - walk.num_kept))
            walk.take(order[walk.num_seen : walk.num_seen + size])
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


def _check_earlier(earlier: Trace, order: np.ndarray) -> None:
    assert len(earlier.selection_rank) == len(order), f"a trace of {len(earlier.selection_rank)} rows for {len(order)}"
    seen = (earlier.selection_rank >= 0) | (earlier.blocked_by >= 0)
    assert seen[order[: earlier.num_seen]].all(), "the earlier walk went through the rows in another order"


class _Walk:
    """The state of the walk: the rows kept so far, how many were seen, and the trace."""

    def __init__(
        self, rows: ExactRows, budget: int, threshold: float, device: torch.device | str, group: Group
    ) -> None:
        self.rows = rows
        self.budget = budget
        self.threshold = threshold
        self.device = device
        self.group = group
        self.scratch = Scratch()
        self.kept = KeptRows(rows, device, group)
        self.num_seen = 0
        self.trace = Trace.empty(len(rows.embeddings))

    @property
    def num_kept(self) -> int:
        """How many rows are kept so far."""
        return len(self.kept)

    def resume(self, earlier: Trace) -> None:
        """Take over what an earlier walk decided; its kept rows are read again."""
        self.trace = Trace(earlier.selection_rank.copy(), earlier.nearest_similarity.copy(), earlier.blocked_by.copy())
        self.num_seen = earlier.num_seen
        kept = earlier.kept
        for start in range(0, len(kept), ROWS_PER_PASS):
            positions = kept[start : start + ROWS_PER_PASS]
            self.kept.add(positions, self._unit(positions))

    def take(self, positions: np.ndarray) -> None:
        """Decide on the next rows of the walk ``[B]``, in order, until the budget is reached."""
        unit = self._unit(positions)
        nearest = self.kept.nearest(unit)  # of this rank's share, so that each kept row counts once
        rejected = self._rejected(positions, unit, nearest.over_ranks(self.group))
        open_rows = np.flatnonzero(~rejected)
        within = with_later(unit, open_rows, self.scratch)
        among_open = within.index_select(1, torch.from_numpy(open_rows).to(within.device)).cpu().numpy()
        keeps = sequential_step(self.rows, positions[open_rows], among_open, self.threshold)
        keeps = keeps[: self.budget - self.num_kept]
        new = open_rows[keeps]
        nearest = nearest.merge(self._nearest_new(rows_at(within, keeps))).over_ranks(self.group)
        num_before = self.num_kept + np.searchsorted(new, np.arange(len(positions)))
        self.kept.add(positions[new], rows_at(unit, new))
        seen = slice(None) if self.num_kept < self.budget else slice(int(new[-1]) + 1)
        self._record(positions[seen], unit[seen], nearest[seen], num_before[seen], new)

    def _unit(self, positions: np.ndarray) -> torch.Tensor:
        return self.rows.read(positions).to(self.device)

    def _rejected(self, positions: np.ndarray, unit: torch.Tensor, nearest: Nearest) -> np.ndarray:
        """Which rows ``[B]`` bool are too similar to one kept before the block, exactly."""
        rejected = nearest.similarity > self.threshold
        if self.threshold >= 1:
            return np.zeros_like(rejected)
        doubt = np.flatnonzero(np.abs(nearest.similarity - self.threshold) <= FLOAT32_DOUBT)
        if len(doubt):
            before = np.full(len(doubt), self.num_kept)
            cosine, _ = self.kept.nearest_exactly(
                rows_at(unit, doubt), positions[doubt], nearest.similarity[doubt], before
            )
            rejected[doubt] = cosine > self.threshold
        return rejected

    def _nearest_new(self, similarity: torch.Tensor) -> Nearest:
        """The nearest of this rank's share of the rows that a block adds, for each row of the block.

        Args:
            similarity: ``[K, B]`` float32, of the new rows with the rows of the block after them, -inf with the others.
        """
        ranks = self.num_kept + np.arange(len(similarity))
        own = np.flatnonzero(self.kept.is_own(ranks))
        if not len(own):
            return Nearest.none(similarity.shape[1])
        return Nearest.among(rows_at(similarity, own).T.contiguous(), ranks[own])

    def _record(
        self, positions: np.ndarray, unit: torch.Tensor, nearest: Nearest, num_before: np.ndarray, new: np.ndarray
    ) -> None:
        """Write the rows of a block into the trace: all but the walk's first have a nearest kept row."""
        compared = np.flatnonzero(num_before > 0)
        blockers = self.kept.positions[self._nearest_rank(positions, unit, nearest, num_before, compared)]
        cosine = self._cosines(positions[compared], blockers)
        is_new = np.isin(compared, new)
        assert ((cosine > self.threshold) != is_new).all(), "a float32 similarity was off by more than 5e-6"
        self.trace.nearest_similarity[positions[compared]] = cosine
        self.trace.blocked_by[positions[compared[~is_new]]] = blockers[~is_new]
        self.trace.selection_rank[positions[new]] = np.arange(self.num_kept - len(new), self.num_kept)
        self.num_seen += len(positions)

    def _nearest_rank(
        self, positions: np.ndarray, unit: torch.Tensor, nearest: Nearest, num_before: np.ndarray, compared: np.ndarray
    ) -> np.ndarray:
        """The selection rank of the nearest kept row of each row ``compared``, exactly."""
        rank = nearest.rank.copy()
        tied = compared[nearest.tied()[compared]]
        if len(tied):
            _, rank[tied] = self.kept.nearest_exactly(
                rows_at(unit, tied), positions[tied], nearest.similarity[tied], num_before[tied]
            )
        return rank[compared]

    def _cosines(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Exact cosines ``[P]`` of pairs, of which every rank computes its turn."""
        turn = np.arange(len(first)) % self.group.size
        own = np.zeros(len(first))
        own[turn == self.group.rank] = self.rows.cosines(
            first[turn == self.group.rank], second[turn == self.group.rank]
        )
        return self.group.gather(own)[turn, np.arange(len(first))]
