"""The division of an epoch's rows into global batches, ranks and micro-batches, by its properties and by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.training.rank_batches import BatchShape, RankBatches
from deita_train.training.sampler import ORDERS


@st.composite
def epochs(draw):
    """Rows in some order, and how they are divided."""
    ranks, micro, accumulation = (draw(st.integers(1, most)) for most in (8, 6, 4))
    shape = BatchShape(ranks * micro * accumulation, ranks, micro)
    order = draw(st.permutations(range(draw(st.integers(1, 60)))))
    return order, shape


def divided(order, shape):
    """The micro-batches of each rank."""
    return [list(shape.micro_batches(order, rank)) for rank in range(shape.ranks)]


@given(epochs())
def test_every_step_has_the_rows_of_its_global_batch_once(epoch):
    order, shape = epoch
    ranks = divided(order, shape)
    size = shape.global_batch_size
    for step in range(math.ceil(len(order) / size)):
        place = slice(step * shape.accumulation, (step + 1) * shape.accumulation)
        seen = [row for micro_batches in ranks for rows in micro_batches[place] for row in rows]
        assert sorted(seen) == sorted(order[step * size : (step + 1) * size])


@given(epochs())
def test_the_ranks_take_part_in_equally_many_micro_batches_none_too_large(epoch):
    order, shape = epoch
    ranks = divided(order, shape)
    assert {len(micro_batches) for micro_batches in ranks} == {shape.num_micro_batches(len(order))}
    assert all(len(rows) <= shape.micro_batch for micro_batches in ranks for rows in micro_batches)
    # As many steps as the trainer counts from them.
    steps = math.ceil(len(ranks[0]) / shape.accumulation)
    assert steps == math.ceil(len(order) / shape.global_batch_size)


@given(epochs())
def test_a_rest_is_spread_evenly(epoch):
    order, shape = epoch
    full, rest = divmod(len(order), shape.global_batch_size)
    ranks = [micro_batches[full * shape.accumulation :] for micro_batches in divided(order, shape)]
    shares = [sum(map(len, micro_batches)) for micro_batches in ranks]
    assert sum(shares) == rest and max(shares) - min(shares) <= 1
    for micro_batches in ranks:
        sizes = [len(rows) for rows in micro_batches]
        assert not sizes or max(sizes) - min(sizes) <= 1
    # Fewer micro-batches could not hold it.
    assert len(ranks[0]) == math.ceil(math.ceil(rest / shape.ranks) / shape.micro_batch)


@given(epochs())
def test_without_the_rest_only_whole_global_batches_are_left(epoch):
    order, shape = epoch
    whole = BatchShape(shape.global_batch_size, shape.ranks, shape.micro_batch, drop_rest=True)
    kept = len(order) // shape.global_batch_size * shape.global_batch_size
    assert divided(order, whole) == divided(order[:kept], shape)
    assert whole.num_micro_batches(len(order)) == whole.num_micro_batches(kept)


@pytest.mark.parametrize(
    ("rows", "shape", "expected"),
    [
        # Two ranks take turns; four rows are left for both.
        (12, BatchShape(8, 2, 2), [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10, 11]]]),
        # Three rows are left: the second rank has none for the second micro-batch.
        (7, BatchShape(4, 2, 1), [[[0], [2], [4], [5]], [[1], [3], [6], []]]),
        # One row is left for three ranks.
        (7, BatchShape(6, 3, 2), [[[0, 1], [6]], [[2, 3], []], [[4, 5], []]]),
        (3, BatchShape(8, 1, 2), [[[0, 1], [2]]]),
    ],
)
def test_divided_by_hand(rows, shape, expected):
    assert divided(range(rows), shape) == expected


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (60, BatchShape(8, 2, 4)), (61, BatchShape(8, 2, 4)), (1, BatchShape(8, 2, 4)), (2, BatchShape(6, 3, 2)),
        (6_000, BatchShape(512, 8, 32)), (10_000, BatchShape(512, 8, 32)),
    ],
)  # fmt: skip
def test_no_row_is_repeated_to_fill_an_epochs_rest(rows, shape):
    trained = [row for rank in divided(range(rows), shape) for batch in rank for row in batch]
    assert sorted(trained) == [*range(rows)]


@pytest.mark.parametrize("strategy", ORDERS)
def test_the_ranks_share_one_order_that_seed_and_epoch_decide(strategy):
    lengths = [(7 * row) % 11 + 1 for row in range(23)]
    shape = BatchShape(8, 2, 2)

    def seen(epoch, seed=5, shape=shape):
        order = ORDERS[strategy](lengths, shape.global_batch_size, seed)
        order.set_epoch(epoch)
        ranks = [list(RankBatches(order, len(lengths), shape, rank)) for rank in range(shape.ranks)]
        assert all(len(RankBatches(order, len(lengths), shape, 0)) == len(batches) for batches in ranks)
        steps = range(0, len(ranks[0]), shape.accumulation)
        return [
            sorted(row for batches in ranks for rows in batches[start : start + shape.accumulation] for row in rows)
            for start in steps
        ]

    assert sorted(row for rows in seen(0) for row in rows) == list(range(23))
    assert seen(1) == seen(1) == seen(1, shape=BatchShape(8, 1, 4)) == seen(1, shape=BatchShape(8, 4, 1))
    changes = strategy != "sequential"
    assert (seen(1) != seen(0)) == (seen(1) != seen(1, seed=6)) == changes
