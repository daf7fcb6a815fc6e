import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from subset_pools import cosines, measured, pools_with_subset

from deita_train.selection.measures.diversity import (
    blocks,
    facility_location,
    highest_similarities,
    kernel,
    mean_nearest_similarity,
    nearest_similarities,
    second_moment,
    vendi_score,
)

checked = partial(settings, derandomize=True, deadline=None, max_examples=60)
EVERY = np.arange(100)


def brute_nearest(cosine, chosen):
    return [max(cosine[i][k] for k in chosen if k != i) for i in chosen]


def brute_vendi(cosine, chosen):
    """From the n x n kernel alone, by an eigenvalue routine for general matrices."""
    matrix = np.array([[cosine[i][k] / len(chosen) for k in chosen] for i in chosen])
    shares = [value.real for value in np.linalg.eigvals(matrix) if value.real > 1e-15]
    return math.exp(-math.fsum(share * math.log(share) for share in shares))


@checked()
@given(pool=pools_with_subset(min_chosen=2), block_size=st.integers(1, 30))
def test_nearest_similarities_agree_with_brute_force(pool, block_size):
    embeddings, chosen = pool
    expected = brute_nearest(cosines(embeddings), chosen)
    found = nearest_similarities(measured(embeddings, embeddings.dtype), chosen, block_size=block_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert found.dtype == np.float64 and (abs(found) <= 1).all()
    mean = mean_nearest_similarity(measured(embeddings, embeddings.dtype), chosen, block_size=block_size)
    assert mean == pytest.approx(sum(expected) / len(expected), abs=2e-6)


def test_nearest_similarities_by_hand():
    # At 0, 60, 90 and 180 degrees; the first three are chosen.
    pool = measured([(2, 0), (0.5, math.sqrt(0.75)), (0, 3), (-1, 0)])
    half, near = math.cos(math.radians(60)), math.cos(math.radians(30))
    np.testing.assert_allclose(nearest_similarities(pool, EVERY[:3]), [half, near, near], atol=1e-7)
    assert mean_nearest_similarity(pool, EVERY[:3]) == pytest.approx((half + 2 * near) / 3, abs=1e-7)
    assert mean_nearest_similarity(pool, np.array([0, 3])) == pytest.approx(-1, abs=1e-7)
    assert mean_nearest_similarity(measured([(1, 2)] * 3), EVERY[:3]) == pytest.approx(1, abs=1e-6)
    assert math.isnan(mean_nearest_similarity(pool, EVERY[:1]))


@checked()
@given(pool=pools_with_subset(), block_size=st.integers(1, 30))
def test_facility_location_agrees_with_brute_force(pool, block_size):
    embeddings, chosen = pool
    cosine = cosines(embeddings)
    expected = [max(cosine[i][k] for k in chosen) for i in range(len(embeddings))]
    rows = measured(embeddings, embeddings.dtype)
    found = highest_similarities(rows, chosen, block_size=block_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert (found[chosen] == 1).all() and (abs(found) <= 1).all()
    value = facility_location(rows, chosen, block_size=block_size)
    assert value == pytest.approx(sum(expected) / len(expected), abs=2e-6)
    assert facility_location(rows, np.arange(len(rows)), block_size=block_size) == 1
    if len(chosen) > 1:  # it never falls when a row is added
        assert facility_location(rows, chosen[:-1], block_size=block_size) <= value + 1e-6


def test_facility_location_by_hand():
    # The chosen row at 0 degrees stands for those at 0, 60, 90 and 180 degrees by 1, 0.5, 0 and -1.
    pool = measured([(2, 0), (0.5, math.sqrt(0.75)), (0, 3), (-1, 0)])
    assert facility_location(pool, EVERY[:1]) == pytest.approx(0.125, abs=1e-7)
    assert facility_location(pool, np.array([0, 3])) == pytest.approx((1 + 0.5 + 0 + 1) / 4, abs=1e-7)


@checked()
@given(pool=pools_with_subset(), block_size=st.integers(1, 30))
def test_vendi_score_agrees_with_brute_force_on_either_matrix(pool, block_size):
    embeddings, chosen = pool
    rows = measured(embeddings, embeddings.dtype)
    expected = brute_vendi(cosines(embeddings), chosen)
    assert vendi_score(rows, chosen, block_size=block_size) == pytest.approx(expected, rel=1e-9)
    assert 1 - 1e-12 <= expected <= min(len(chosen), embeddings.shape[1]) + 1e-9
    # Both matrices have the same eigenvalues, and one of them more zeros than the other.
    small, large = sorted(
        (
            np.linalg.eigvalsh(m)[::-1]
            for m in (kernel(rows, chosen), second_moment(rows, chosen, block_size=block_size))
        ),
        key=len,
    )
    np.testing.assert_allclose(large[: len(small)], small, rtol=0, atol=1e-12)
    np.testing.assert_allclose(large[len(small) :], 0, atol=1e-12)


@pytest.mark.parametrize("num_rows", [1, 3, 8, 40])  # fewer and more rows than dimensions
def test_vendi_score_of_identical_and_of_orthogonal_rows(num_rows):
    copies = np.tile(np.array([[1, 2, 0, 0, -1]]), (num_rows, 1)) * (1 + np.arange(num_rows))[:, None]
    assert vendi_score(measured(copies), np.arange(num_rows)) == pytest.approx(1, abs=1e-9)
    axes = np.eye(50)[:num_rows] * 3
    assert vendi_score(measured(axes), np.arange(num_rows)) == pytest.approx(num_rows, rel=1e-12)


def test_vendi_score_by_hand():
    # Two rows at 60 degrees: K / 2 has the eigenvalues (1 +- 0.5) / 2, here from the kernel, and with each row twice
    # from the second moment.
    shares = (0.75, 0.25)
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    pair = [(1, 0), (0.5, math.sqrt(0.75))]
    assert vendi_score(measured(pair), EVERY[:2]) == pytest.approx(expected, rel=1e-7)
    assert vendi_score(measured(pair * 2), EVERY[:4]) == pytest.approx(expected, rel=1e-7)


@checked()
@given(pool=pools_with_subset(min_chosen=2), seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(pool, seed):
    embeddings, chosen = pool
    permutation = np.random.default_rng(seed).permutation(len(embeddings))
    moved, places = embeddings[permutation], np.argsort(permutation)[np.random.default_rng(seed).permutation(chosen)]
    for measure in (mean_nearest_similarity, facility_location, vendi_score):
        here = measure(measured(embeddings, embeddings.dtype), chosen)
        there = measure(measured(moved, embeddings.dtype), places)
        assert there == pytest.approx(here, abs=2e-6)


def test_blocks_cover_the_rows_once():
    assert [(b.start, b.stop) for b in blocks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(blocks(0, 3)) == []
