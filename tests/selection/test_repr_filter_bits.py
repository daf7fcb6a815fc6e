"""The whole trace, bit by bit: many blocks, walks that continue or are cut, ranks, similarities at the threshold."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from repr_filter_reference import assert_same, ids_for, selected
from test_repr_filter_properties import brute_force, pools, usable

from deita_train.errors import UserError
from deita_train.selection.repr_filter import kept_rows, within_block
from deita_train.selection.repr_filter.repr_filter import Trace, cut_trace, repr_filter, walk_order

checked = partial(settings, derandomize=True, deadline=None)
THRESHOLDS = st.sampled_from([-0.5, 0.0, 0.5, 0.9, 0.999, 1.0])


def clustered(num_rows=1500, dim=48, seed=0, spread=0.32):
    """Clusters whose rows are about 0.9 similar, copies of rows, tied scores: several blocks, many rejections."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, dim))
    rows = centres[rng.integers(40, size=num_rows)] + spread * rng.standard_normal((num_rows, dim))
    rows[-num_rows // 10 :] = rows[: num_rows // 10]
    return rows.astype(np.float32), ids_for(num_rows), rng.integers(50, size=num_rows).astype(np.float64)


class ThreadGroup:
    """The ranks of a group as threads of this process."""

    def __init__(self, rank, values, barrier):
        self.rank, self.size, self._values, self._barrier = rank, len(values), values, barrier

    def gather(self, values):
        self._values[self.rank] = values
        self._barrier.wait(20)
        every = np.stack(self._values)
        self._barrier.wait(20)
        return every


def on_ranks(size, *pool, **options):
    """The traces, or the errors, of every rank."""
    values, barrier, results = [None] * size, threading.Barrier(size), [None] * size

    def walk(rank):
        try:
            results[rank] = repr_filter(*pool, group=ThreadGroup(rank, values, barrier), **options)
        except UserError as error:
            results[rank] = error

    threads = [threading.Thread(target=walk, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@checked(max_examples=80)
@given(
    pool=pools(),
    threshold=THRESHOLDS,
    budgets=st.tuples(st.integers(1, 45), st.none() | st.integers(1, 45)),
    center=st.booleans(),
    block_size=st.integers(1, 50),
)
def test_a_walk_continues_and_is_cut_without_a_trace_of_it(pool, threshold, budgets, center, block_size):
    embeddings, ids, scores = pool
    assume(usable(embeddings, center))
    walk = partial(repr_filter, embeddings, ids, scores, threshold=threshold, center=center)
    first, then = (walk(budget=budget) for budget in budgets)
    before = Trace(*(values.copy() for values in vars(first).values()))
    assert_same(walk(budget=budgets[1], earlier=first, block_size=block_size), then)
    assert_same(first, before)  # what was given is left as it is
    whole, order = walk(budget=None), walk_order(ids, scores)
    for budget in range(1, len(ids) + 2):
        assert_same(cut_trace(whole, order, budget), walk(budget=budget))


@checked(max_examples=60)
@given(
    pool=pools(),
    threshold=THRESHOLDS,
    budget=st.none() | st.integers(1, 45),
    center=st.booleans(),
    block_size=st.integers(1, 50),
    size=st.integers(2, 4),
)
def test_the_ranks_of_a_group_agree_with_one_process(pool, threshold, budget, center, block_size, size):
    embeddings, ids, scores = pool
    assume(usable(embeddings, center))
    options = {"budget": budget, "threshold": threshold, "center": center}
    trace = repr_filter(embeddings, ids, scores, **options)
    for found in on_ranks(size, embeddings, ids, scores, block_size=block_size, **options):
        assert_same(found, trace)


@pytest.mark.parametrize("threshold", [0.8, 0.9, 1.0])
def test_many_blocks_and_pieces_change_no_bit(monkeypatch, threshold):
    pool = clustered()
    walk = partial(repr_filter, *pool, budget=700, threshold=threshold)
    trace = walk()
    assert trace.num_kept == 700 or trace.num_seen == 1500
    assert threshold == 1 or trace.num_seen - trace.num_kept > 300
    rank, nearest, blocked, gap = brute_force(*pool, 700, threshold)
    assert threshold == 1 or gap > 1e-12
    assert trace.selection_rank.tolist() == rank.tolist()
    assert trace.blocked_by.tolist() == blocked.tolist()
    np.testing.assert_allclose(trace.nearest_similarity, nearest, rtol=0, atol=6e-8, equal_nan=True)
    monkeypatch.setattr(kept_rows, "KEPT_PER_PRODUCT", 100)
    monkeypatch.setattr(within_block, "ROWS_PER_STRIP", 30)
    for block_size in (1, 64, 1500):
        assert_same(walk(block_size=block_size), trace)
    for found in on_ranks(3, *pool, budget=700, threshold=threshold, block_size=100):
        assert_same(found, trace)
    assert_same(walk(earlier=walk(budget=333)), trace)
    assert_same(walk(budget=333), cut_trace(trace, walk_order(*pool[1:]), 333))


@pytest.mark.parametrize("block_size", [1, 10, 1024])
def test_a_cluster_at_the_threshold_is_decided_exactly(block_size):
    # Every similarity is within 1e-7 of 0.9, those of the rows with the axis and those of the rows with each other:
    # float32 can neither decide nor say which of two kept rows is nearer.
    rng = np.random.default_rng(4)
    num_rows, dim = 60, 64
    rows = np.zeros((num_rows, dim))
    rows[:, 0] = np.sqrt(0.9)
    rows[np.arange(num_rows), 1 + np.arange(num_rows)] = np.sqrt(0.1)
    embeddings = (rows * rng.uniform(0.5, 2, size=(num_rows, 1))).astype(np.float32)
    scores = rng.random(num_rows)
    rank, nearest, blocked, gap = brute_force(embeddings, ids_for(num_rows), scores, None, 0.9)
    assert np.nanmax(np.abs(nearest - 0.9)) < 1e-7 and gap > 1e-15
    assert 2 < (rank >= 0).sum() < num_rows - 2
    trace = repr_filter(embeddings, ids_for(num_rows), scores, budget=None, threshold=0.9, block_size=block_size)
    assert trace.selection_rank.tolist() == rank.tolist()
    assert trace.blocked_by.tolist() == blocked.tolist()
    np.testing.assert_allclose(trace.nearest_similarity, nearest, rtol=0, atol=6e-8, equal_nan=True)


def test_copies_are_all_blocked_by_the_first_and_are_exactly_1():
    embeddings, _, scores = clustered(300)
    copied = np.concatenate([embeddings] * 3)
    scores = np.concatenate([scores, scores - 100, scores - 200])
    trace = repr_filter(copied, ids_for(900), scores, budget=None, threshold=np.nextafter(1.0, 0))
    assert (trace.selection_rank[300:] == -1).all()
    distinct = trace.selection_rank[:300] >= 0
    assert (trace.nearest_similarity[300:] == 1).all()
    for copy in (300, 600):
        assert (trace.blocked_by[copy : copy + 300][distinct] == np.flatnonzero(distinct)).all()
    everything = repr_filter(copied, ids_for(900), scores, budget=None, threshold=1.0)
    assert selected(everything) == walk_order(ids_for(900), scores).tolist()
    assert (everything.nearest_similarity[300:] == 1).all()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_row_without_a_direction_is_refused_by_every_rank(size):
    embeddings, ids, scores = clustered(50)
    embeddings[[3, 30, 49]] = np.nan
    for found in on_ranks(size, embeddings, ids, scores, budget=1, threshold=0.9):
        assert isinstance(found, UserError) and "Rows: 'r3', 'r30', 'r49'. " in str(found)


def test_more_ranks_than_rows():
    pool = np.eye(2, dtype=np.float32), ids_for(2), np.zeros(2)
    for found in on_ranks(5, *pool, budget=None, threshold=0.9):
        assert_same(found, repr_filter(*pool, budget=None, threshold=0.9))


def test_a_trace_of_other_rows_or_scores_is_our_own_fault():
    embeddings, ids, scores = clustered(60)
    earlier = repr_filter(embeddings, ids, scores, budget=5, threshold=0.9)
    with pytest.raises(AssertionError, match="in another order"):
        repr_filter(embeddings, ids, -scores, budget=9, threshold=0.9, earlier=earlier)
    with pytest.raises(AssertionError, match="a trace of 60 rows for 59"):
        repr_filter(embeddings[1:], ids[1:], scores[1:], budget=9, threshold=0.9, earlier=earlier)
    with pytest.raises(AssertionError, match="continue the walk for 9"):
        cut_trace(earlier, walk_order(ids, scores), 9)


def test_a_product_that_is_far_off_is_noticed(monkeypatch):
    embeddings, ids, scores = clustered(200)
    real = kept_rows.KeptRows.nearest

    def off(self, unit):
        nearest = real(self, unit)
        return kept_rows.Nearest(nearest.similarity - 0.01, nearest.runner_up - 0.01, nearest.rank)

    monkeypatch.setattr(kept_rows.KeptRows, "nearest", off)
    with pytest.raises(AssertionError, match="off by more than 5e-6"):
        repr_filter(embeddings, ids, scores, budget=None, threshold=0.9, block_size=20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("threshold", [0.8, 0.9, 1.0])
def test_a_gpu_gives_the_bits_of_the_cpu(threshold):
    pool = clustered(6000, 256)
    trace = repr_filter(*pool, budget=2000, threshold=threshold)
    assert_same(repr_filter(*pool, budget=2000, threshold=threshold, device="cuda"), trace)
    earlier = repr_filter(*pool, budget=500, threshold=threshold, device="cuda")
    assert_same(repr_filter(*pool, budget=2000, threshold=threshold, device="cuda", earlier=earlier), trace)
