import math
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from repr_filter_reference import unit64
from subset_pools import cosines, measured, pools_with_subset

from deita_train.selection.measures.novel_sum import density_factors, distinct_rows, novel_sum

checked = partial(settings, derandomize=True, deadline=None, max_examples=60)


def brute_novel_sum(cosine, chosen, factors, power, with_self):
    """The formula of the module, one row and one rank after the other."""
    total = 0.0
    for i, factor in zip(chosen, factors, strict=True):
        distances = sorted(1 - cosine[i][k] for k in chosen if k != i)
        distances = [0.0, *distances] if with_self else distances
        weights = [rank**-power for rank in range(1, len(distances) + 1)]
        total += factor * math.fsum(w * d for w, d in zip(weights, distances, strict=True)) / math.fsum(weights)
    return total / len(chosen)


def brute_factors(embeddings, chosen, num_neighbours, power, floor):
    unit, distinct = unit64(embeddings), []
    for i, row in enumerate(embeddings.tolist()):
        if row not in [embeddings[k].tolist() for k in distinct]:
            distinct.append(i)
    factors = []
    for i in chosen:
        others = [k for k in distinct if embeddings[k].tolist() != embeddings[i].tolist()]
        squares = sorted(math.fsum((unit[i] - unit[k]) ** 2) for k in others)[:num_neighbours]
        factors.append((math.fsum(squares) / len(squares) + floor) ** -power)
    return factors


@checked()
@given(
    pool=pools_with_subset(min_chosen=2),
    power=st.sampled_from([0.0, 1.0, 2.0]),
    with_self=st.booleans(),
    block_size=st.integers(1, 30),
)
def test_novel_sum_agrees_with_brute_force(pool, power, with_self, block_size):
    embeddings, chosen = pool
    factors = np.random.default_rng(0).uniform(0.5, 2, len(chosen))
    rows = measured(embeddings, embeddings.dtype)
    found = novel_sum(rows, chosen, factors, proximity_power=power, with_self=with_self, block_size=block_size)
    expected = brute_novel_sum(cosines(embeddings), chosen, factors, power, with_self)
    assert found == pytest.approx(expected, rel=1e-5, abs=4e-6)
    assert found >= 0


@checked()
@given(pool=pools_with_subset(min_chosen=3), num_neighbours=st.integers(1, 30), block_size=st.integers(1, 30))
def test_density_factors_agree_with_brute_force(pool, num_neighbours, block_size):
    embeddings, chosen = pool
    assume(len(np.unique(embeddings, axis=0)) > 1)
    # A floor of 1e-3 keeps the factor steady where float32 products cannot order neighbours that almost coincide.
    options = {"num_neighbours": num_neighbours, "floor": 1e-3}
    found = density_factors(measured(embeddings, embeddings.dtype), chosen, block_size=block_size, **options)
    expected = brute_factors(embeddings, chosen, power=0.5, **options)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_array_equal(
        density_factors(measured(embeddings, embeddings.dtype), chosen, density_power=0, **options), 1
    )


def test_by_hand():
    # The pool lies at 0, 60 and 180 degrees and has a copy of the first; the rows at 0 and 180 degrees are chosen, at a
    # distance of 2. Squared distances: 0 to 60 degrees 1, 0 to 180 degrees 4, 60 to 180 degrees 3.
    pool = measured([(1, 0), (0.5, math.sqrt(0.75)), (-2, 0), (1, 0)])
    chosen = np.array([0, 2])
    one = density_factors(pool, chosen, num_neighbours=1)
    np.testing.assert_allclose(one, [1, 3**-0.5], rtol=1e-6)
    both = density_factors(pool, chosen, density_power=1.0)  # of ten neighbours the pool has two
    np.testing.assert_allclose(both, [1 / 2.5, 1 / 3.5], rtol=1e-6)
    assert novel_sum(pool, chosen, one) == pytest.approx((2 * 1 + 2 * 3**-0.5) / 2, rel=1e-6)
    # Counting itself, a row has the weights 1 and 1/2 and the distances 0 and 2.
    assert novel_sum(pool, chosen, one, with_self=True) == pytest.approx((1 + 3**-0.5) / 2 * (2 / 2) / 1.5, rel=1e-6)


def test_the_nearest_distance_weighs_most():
    # From the row at 0 degrees: 1 - cos 60 = 0.5 and 1 - cos 180 = 2, with the weights 1 and 1/2.
    pool = measured([(1, 0), (0.5, math.sqrt(0.75)), (-1, 0)])
    by_row = [(0.5 + 2 / 2) / 1.5, (0.5 + 1.5 / 2) / 1.5, (1.5 + 2 / 2) / 1.5]
    assert novel_sum(pool, np.arange(3), np.ones(3)) == pytest.approx(sum(by_row) / 3, rel=1e-6)


def test_the_density_of_near_duplicates_is_reported_apart():
    # Squared distances of about 1e-10 and 4e-10, far below what a float32 cosine resolves.
    rows = np.array([(0.6, 0.8, 0.3), (0.6, 0.8, 0.30001), (0.3, 0.2, 0.9), (0.3, 0.20002, 0.9)], dtype=np.float32)
    unit = unit64(rows)
    squares = [math.fsum((unit[a] - unit[b]) ** 2) for a, b in ((0, 1), (2, 3))]
    assert max(squares) < 1e-9
    factors = density_factors(measured(rows), np.array([0, 2]), num_neighbours=1, floor=1e-15)
    np.testing.assert_allclose(factors, [(square + 1e-15) ** -0.5 for square in squares], rtol=1e-6)


def test_equal_rows_and_single_rows():
    copies = measured([(1, 2)] * 4)
    assert np.isnan(density_factors(copies, np.arange(2))).all()
    assert novel_sum(copies, np.arange(4), np.ones(4)) == pytest.approx(0, abs=1e-6)
    assert math.isnan(novel_sum(copies, np.arange(1), np.ones(1)))


def test_distinct_rows():
    rows = np.array([(1, 0), (2, 0), (1, -0.0), (2, 0), (0, 1)], dtype=np.float16)
    assert distinct_rows(rows).tolist() == [0, 1, 4]


@checked(max_examples=30)
@given(pool=pools_with_subset(min_chosen=2), seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(pool, seed):
    embeddings, chosen = pool
    assume(len(np.unique(embeddings, axis=0)) > 1)
    permutation = np.random.default_rng(seed).permutation(len(embeddings))
    values = []
    for rows, places in ((embeddings, chosen), (embeddings[permutation], np.argsort(permutation)[chosen][::-1])):
        pool_rows = measured(rows, rows.dtype)
        values.append(novel_sum(pool_rows, places, density_factors(pool_rows, places, floor=1e-3)))
    assert values[0] == pytest.approx(values[1], rel=2e-3, abs=1e-4)
