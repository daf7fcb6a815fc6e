from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.inference.batches import padding_share, plan_batches

lengths_strategy = st.lists(st.integers(1, 50), max_size=40)


def test_by_hand():
    # Longest first: 9 alone, since 2 x 9 > 12; then 6 and 5 as 2 x 6; then 3, 3 and 2 as 3 x 3, since 4 x 3 still
    # fits but nothing is left.
    assert plan_batches([3, 9, 5, 2, 6, 3], 12) == [[1], [4, 2], [0, 5, 3]]


def test_nothing_gives_no_batch():
    assert plan_batches([], 10) == []
    assert padding_share([], []) == 0.0


def test_an_item_beyond_the_budget_stands_alone():
    assert plan_batches([30, 4, 20, 5], 10) == [[0], [2], [3, 1]]


@given(lengths_strategy, st.integers(1, 120))
def test_every_position_once_longest_first_within_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    order = [position for batch in batches for position in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [(-lengths[p], p) for p in order] == sorted((-length, p) for p, length in enumerate(lengths))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or len(batch) * max(lengths[p] for p in batch) <= budget


@given(lengths_strategy, st.integers(1, 120))
def test_a_batch_ends_only_where_one_more_item_would_not_fit(lengths, budget):
    batches = plan_batches(lengths, budget)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * max(lengths[p] for p in batch) > budget


def test_padding_share_by_hand():
    # 2 x 4 + 3 x 2 = 14 computed tokens, of which 4 + 1 + 2 + 2 + 1 = 10 are real.
    assert padding_share([4, 1, 2, 2, 1], [[0, 1], [2, 3, 4]]) == pytest.approx(4 / 14)
    assert padding_share([3, 3, 7], [[0, 1], [2]]) == 0.0


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 120))
def test_padding_share_against_counting_cells(lengths, budget):
    batches = plan_batches(lengths, budget)
    cells = [[column < lengths[p] for column in range(lengths[batch[0]])] for batch in batches for p in batch]
    padded = sum(row.count(False) for row in cells)
    expected = Fraction(padded, sum(map(len, cells)))
    assert padding_share(lengths, batches) == pytest.approx(float(expected))
