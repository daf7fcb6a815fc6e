import math
from functools import partial

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from repr_filter_reference import assert_same, ids_for, permuted, selected, unit64

from deita_train.selection.repr_filter.repr_filter import repr_filter

checked = partial(settings, derandomize=True, deadline=None)


def brute_force(embeddings, ids, scores, budget, threshold, center=False):
    """One candidate after the other, one kept row after the other, in float64.

    Returns (selection_rank, nearest_similarity, blocked_by, gap), gap being the smallest distance of a decision to the
    threshold.
    """
    unit = unit64(embeddings, center)
    rank, nearest, blocked = [-1] * len(ids), [math.nan] * len(ids), [-1] * len(ids)
    kept, gap = [], math.inf
    for i in sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i])):
        if budget is not None and len(kept) == budget:
            break
        best, blocker = -math.inf, -1
        for k in kept:
            similarity = min(1.0, max(-1.0, math.fsum(unit[i] * unit[k])))
            if similarity > best:
                best, blocker = similarity, k
        if kept:
            nearest[i], gap = best, min(gap, abs(best - threshold))
        if best > threshold:
            blocked[i] = blocker
        else:
            rank[i] = len(kept)
            kept.append(i)
    return np.array(rank), np.array(nearest), np.array(blocked), gap


@st.composite
def pools(draw, max_rows=40):
    """Clustered rows with many rejections, tied scores and, sometimes, exact duplicates; float32 or float16."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_rows, dim = draw(st.integers(1, max_rows)), draw(st.integers(2, 12))
    centres = rng.standard_normal((draw(st.integers(1, 10)), dim))
    rows = centres[rng.integers(len(centres), size=num_rows)]
    rows = rows + draw(st.sampled_from([0.0, 0.05, 0.3, 2.0])) * rng.standard_normal((num_rows, dim))
    rows *= rng.uniform(0.01, 100.0, size=(num_rows, 1)) if draw(st.booleans()) else 1.0
    embeddings = rows.astype(draw(st.sampled_from([np.float32, np.float16])))
    scores = rng.integers(0, draw(st.sampled_from([3, 1000])), size=num_rows).astype(np.float64)
    ids = [f"row-{i}" for i in rng.permutation(num_rows)]
    return embeddings, ids, scores


def usable(embeddings, center=False):
    rows = embeddings.astype(np.float64)
    rows = rows - rows.mean(axis=0) if center else rows
    return bool((np.linalg.norm(rows, axis=1) > 1e-6).all())


@checked(max_examples=150)
@given(
    pool=pools(),
    threshold=st.sampled_from([-0.5, 0.0, 0.3, 0.7, 0.9, 0.99]),
    budget=st.none() | st.integers(1, 45),
    center=st.booleans(),
    block_size=st.sampled_from([1, 2, 5, 1024]),
)
def test_agrees_with_brute_force(pool, threshold, budget, center, block_size):
    embeddings, ids, scores = pool
    assume(usable(embeddings, center))
    rank, nearest, blocked, gap = brute_force(embeddings, ids, scores, budget, threshold, center)
    assume(gap > 1e-12)  # another order of summation may decide a tie with the threshold differently
    trace = repr_filter(
        embeddings, ids, scores, budget=budget, threshold=threshold, center=center, block_size=block_size
    )
    assert trace.selection_rank.tolist() == rank.tolist()
    np.testing.assert_allclose(trace.nearest_similarity, nearest, rtol=0, atol=2e-6, equal_nan=True)
    assert ((trace.blocked_by >= 0) == (blocked >= 0)).all()
    unit = unit64(embeddings, center)
    for row in np.flatnonzero(trace.blocked_by != blocked):  # equals up to rounding, such as copies scaled by a factor
        assert abs(unit[row] @ unit[trace.blocked_by[row]] - unit[row] @ unit[blocked[row]]) < 1e-12


@checked(max_examples=80)
@given(pool=pools(), threshold=st.sampled_from([0.0, 0.5, 0.9]), budget=st.none() | st.integers(1, 45))
def test_invariants(pool, threshold, budget):
    embeddings, ids, scores = pool
    assume(usable(embeddings))
    trace = repr_filter(embeddings, ids, scores, budget=budget, threshold=threshold)
    kept = selected(trace)
    order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    assert kept[0] == order[0]
    assert [i for i in order if trace.selection_rank[i] >= 0] == kept
    unit = unit64(embeddings)
    assert all(unit[a] @ unit[b] <= threshold + 1e-12 for a in kept for b in kept if a != b)
    last = len(order) if budget is None or len(kept) < budget else order.index(kept[-1]) + 1
    for i in order[:last]:
        if trace.selection_rank[i] < 0:
            blocker = trace.blocked_by[i]
            assert trace.selection_rank[blocker] >= 0
            assert order.index(blocker) < order.index(i)
            assert unit[i] @ unit[blocker] > threshold - 1e-12
    for i in order[last:]:
        assert trace.selection_rank[i] == trace.blocked_by[i] == -1
        assert np.isnan(trace.nearest_similarity[i])


@checked(max_examples=80)
@given(
    pool=pools(),
    threshold=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    budget=st.none() | st.integers(1, 45),
    center=st.booleans(),
    block_size=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_block_size_and_row_order_do_not_matter(pool, threshold, budget, center, block_size, seed):
    embeddings, ids, scores = pool
    assume(usable(embeddings, center))
    options = {"budget": budget, "threshold": threshold, "center": center}
    trace = repr_filter(embeddings, ids, scores, **options)
    assert_same(repr_filter(embeddings, ids, scores, block_size=block_size, **options), trace)
    permutation = np.random.default_rng(seed).permutation(len(ids))
    assert_same(permuted(embeddings, ids, scores, permutation, block_size=block_size, **options), trace)


@checked(max_examples=40)
@given(pool=pools(), threshold=st.sampled_from([0.0, 0.9]), budget=st.integers(1, 45))
def test_a_smaller_budget_selects_a_prefix(pool, threshold, budget):
    embeddings, ids, scores = pool
    assume(usable(embeddings))
    whole = selected(repr_filter(embeddings, ids, scores, budget=None, threshold=threshold))
    assert selected(repr_filter(embeddings, ids, scores, budget=budget, threshold=threshold)) == whole[:budget]


@checked(max_examples=40)
@given(pool=pools(), threshold=st.sampled_from([1.0, 1.5, math.inf]), budget=st.none() | st.integers(1, 45))
def test_a_threshold_of_one_gives_plain_top_k(pool, threshold, budget):
    embeddings, ids, scores = pool
    assume(usable(embeddings))
    order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    assert selected(repr_filter(embeddings, ids, scores, budget=budget, threshold=threshold)) == order[:budget]


@checked(max_examples=40)
@given(pool=pools(max_rows=15), copies=st.integers(2, 4), seed=st.integers(0, 1000))
def test_of_exact_duplicates_one_is_kept(pool, copies, seed):
    embeddings, _, _ = pool
    assume(usable(embeddings))
    duplicated = np.tile(embeddings, (copies, 1))
    scores = np.random.default_rng(seed).random(len(duplicated))
    trace = repr_filter(duplicated, ids_for(len(duplicated)), scores, budget=None, threshold=0.9999)
    _, group = np.unique(duplicated, axis=0, return_inverse=True)
    kept_per_group = np.bincount(group.ravel(), weights=trace.selection_rank >= 0)
    assert kept_per_group.max() == 1
