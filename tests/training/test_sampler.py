"""The order of training rows."""

from itertools import pairwise

from accelerate.data_loader import SeedableRandomSampler
from hypothesis import given
from hypothesis import strategies as st

from deita_train.training.sampler import BATCHES_PER_GROUP, LengthGroupedBatches, RandomOrder

LENGTHS = [(7 * row) % 101 + 1 for row in range(1003)]


def epoch_order(epoch, seed=3, size=8):
    sampler = LengthGroupedBatches(LENGTHS, size, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def batch_means(order, size=8):
    full = len(order) // size * size
    return [sum(LENGTHS[row] for row in order[i : i + size]) / size for i in range(0, full, size)]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 5))
def test_every_row_comes_exactly_once(lengths, size, epoch):
    sampler = LengthGroupedBatches(lengths, size, seed=1)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(lengths))) and len(sampler) == len(lengths)


def test_rows_of_a_batch_are_of_similar_length():
    order = epoch_order(0)
    spreads = [
        max(LENGTHS[row] for row in order[i : i + 8]) - min(LENGTHS[row] for row in order[i : i + 8])
        for i in range(0, 1000, 8)
    ]
    # 400 rows of 101 different lengths, sorted and cut into batches of 8: two lengths a batch on average.
    assert sum(spreads) / len(spreads) < 4


def test_batches_do_not_drift_from_long_to_short():
    means = batch_means(epoch_order(0))[:BATCHES_PER_GROUP]
    falls = sum(earlier > later for earlier, later in pairwise(means))
    assert 12 < falls < 37, "half of the steps, give or take, go down in a random order of 50"


def test_the_random_order_is_that_of_transformers():
    ours, theirs = RandomOrder(LENGTHS, 8, 3), SeedableRandomSampler(LENGTHS, data_seed=3)
    for epoch in (0, 2):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        assert list(ours) == list(theirs)


def test_seed_and_epoch_decide_alone():
    assert epoch_order(2) == epoch_order(2)
    assert epoch_order(2) != epoch_order(1)
    assert epoch_order(2) != epoch_order(2, seed=4)
