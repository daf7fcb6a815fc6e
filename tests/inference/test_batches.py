import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from deita_train.inference.batches import (
    Batches,
    BatchPlan,
    padding_share,
    plan_batches,
    plan_groups,
    read_plan,
    share_batches,
    write_plan,
)
from deita_train.scoring.prompts import render

lengths_strategy = st.lists(st.integers(1, 50), max_size=40)


def test_batches_of_groups_by_hand():
    # Group 0 has items 1, 3 and 4 (9, 2 and 6 long), group 2 items 0, 2 and 5 (3, 5 and 3 long); group 1 has none.
    lengths, groups = np.array([3, 9, 5, 2, 6, 3]), np.array([2, 0, 2, 0, 0, 2])
    assert plan_groups(lengths, groups, 12) == [[1], [4, 3], [2, 0], [5]]
    assert plan_groups(np.empty(0, np.int32), np.empty(0, np.int64), 12) == []


@given(
    rows=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 4)), max_size=40), max_batch_tokens=st.integers(1, 200)
)
def test_a_group_has_the_batches_that_it_has_alone(rows, max_batch_tokens):
    lengths = np.array([length for length, _ in rows], dtype=np.int32)
    groups = np.array([group for _, group in rows], dtype=np.int64)
    expected = []
    for group in sorted(set(groups.tolist())):
        members = np.flatnonzero(groups == group)
        expected += [members[batch].tolist() for batch in plan_batches(lengths[members], max_batch_tokens)]
    assert plan_groups(lengths, groups, max_batch_tokens) == expected


def test_by_hand():
    # Longest first: 9 alone, since 2 x 9 > 12; then 6 and 5 as 2 x 6; then 3, 3 and 2 as 3 x 3, since 4 x 3 still
    # fits but nothing is left.
    assert plan_batches([3, 9, 5, 2, 6, 3], 12) == [[1], [4, 2], [0, 5, 3]]


def test_nothing_gives_no_batch():
    assert plan_batches([], 10) == []
    assert padding_share(np.array([]), Batches.of([])) == 0.0


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
    assert padding_share(np.array([4, 1, 2, 2, 1]), Batches.of([[0, 1], [2, 3, 4]])) == pytest.approx(4 / 14)
    assert padding_share(np.array([3, 3, 7]), Batches.of([[0, 1], [2]])) == 0.0


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 120))
def test_padding_share_against_counting_cells(lengths, budget):
    batches = plan_batches(lengths, budget)
    cells = [[column < lengths[p] for column in range(lengths[batch[0]])] for batch in batches for p in batch]
    padded = sum(row.count(False) for row in cells)
    expected = Fraction(padded, sum(map(len, cells)))
    assert padding_share(np.array(lengths), batches) == pytest.approx(float(expected))


def test_a_busy_batch_ends_where_padding_begins_to_cost():
    # 4 x 1,024 = 4,096 keep a device busy; a fifth row of 800 makes 5 x 1,024 of which 4,896 / 5,120 = 95.6% are real,
    # a sixth makes 5,696 / 6,144 = 92.7%.
    assert plan_batches([1024] * 4 + [800] * 4, 100_000) == [[0, 1, 2, 3, 4], [5, 6, 7]]
    # 3 x 1,024 is not busy yet, so the first short row joins all the same: 3,872 / 4,096 = 94.5%.
    assert plan_batches([1024] * 3 + [800] * 4, 100_000) == [[0, 1, 2, 3], [4, 5, 6]]


@settings(deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=60), st.sampled_from([5000, 20_000, 200_000]))
def test_a_batch_that_keeps_a_device_busy_without_its_last_row_is_hardly_padded(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        longest, real = lengths[batch[0]], sum(lengths[position] for position in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
        assert longest * (len(batch) - 1) < 4096 or real >= 0.95 * longest * len(batch)


@pytest.mark.parametrize("budget", [4_096, 262_144])
def test_of_the_real_pool_hardly_anything_is_padding(shared, budget):
    """Every fifth row, so that the test is quick; batches of the whole pool are padded less still."""
    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers" / "mistral-7b-v0.1")
    lines = (shared / "data" / "real_pool_sharegpt.jsonl").read_text().splitlines()[::5]
    turns = [[message["value"] for message in json.loads(line)["conversations"]] for line in lines]
    assert len(turns) == 1932
    texts = [render("quality", *turn) for turn in turns]
    lengths = [min(len(encoding.ids), 2048) for encoding in tokenizer.backend_tokenizer.encode_batch(texts)]
    assert padding_share(np.array(lengths), plan_batches(lengths, budget)) < 0.05


def test_cost_by_hand():
    plan = BatchPlan(Batches.of([[1, 0], [2]]), np.array([3, 5, 7]), 10)
    # 2 rows of 5 tokens and 1 of 7: B x T x (24,576 + T).
    assert [plan.cost(0), plan.cost(1)] == [2 * 5 * 24_581, 7 * 24_583]
    assert [plan.tokens(0), plan.tokens(1)] == [8, 7]


def test_at_the_length_24576_a_token_costs_twice_what_a_first_one_does():
    short, long = BatchPlan(Batches.of([[0]]), np.array([1]), 1), BatchPlan(Batches.of([[0]]), np.array([24_576]), 1)
    assert long.cost(0) / 24_576 == pytest.approx(2 * short.cost(0), rel=1e-4)


def test_shares_by_hand():
    # The longest first to the least loaded: 9 -> 0; 7 -> 1; 6 -> 1, since 7 < 9; 5 -> 0, since 9 < 13; 2 -> 1, since
    # 13 < 14.
    costs = {4: 5, 1: 9, 0: 2, 3: 6, 2: 7}
    assert share_batches(costs, 2) == [[1, 4], [2, 3, 0]]
    assert share_batches(costs, 1) == [[1, 2, 3, 4, 0]]
    assert share_batches({}, 3) == [[], [], []]


costs_strategy = st.dictionaries(st.integers(0, 500), st.integers(1, 10**6), max_size=60)


@given(costs_strategy, st.integers(1, 9))
def test_every_missing_batch_is_computed_once(costs, world_size):
    shares = share_batches(costs, world_size)
    assert len(shares) == world_size
    assert sorted(number for share in shares for number in share) == sorted(costs)
    assert shares == share_batches(dict(reversed(costs.items())), world_size), "the order of the set must not matter"


def least_possible(costs, world_size):
    """The longest rank's cost under the best of all ways to share."""
    return min(
        max(sum(cost for cost, at in zip(costs, ranks, strict=True) if at == rank) for rank in range(world_size))
        for ranks in product(range(world_size), repeat=len(costs))
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 30), max_size=7), st.integers(1, 3))
def test_the_longest_rank_is_near_the_best_that_is_possible(costs, world_size):
    shares = share_batches(dict(enumerate(costs)), world_size)
    longest = max(sum(costs[number] for number in share) for share in shares)
    assert longest <= (Fraction(4, 3) - Fraction(1, 3 * world_size)) * least_possible(costs, world_size)


def test_plan_round_trip(tmp_path):
    facts = {"digit_ids": [5, 6], "missing": np.array([0, 4, 9])}
    plan = BatchPlan(Batches.of([[1, 0], [2]]), np.array([3, 5, 7], np.int32), 10, facts)
    write_plan(tmp_path / "plan", plan)
    found = read_plan(tmp_path / "plan")
    assert (found.batches, found.max_batch_tokens) == (plan.batches, 10)
    assert found.lengths.tolist() == [3, 5, 7] and found.lengths.dtype == np.int32
    assert found.facts["digit_ids"] == [5, 6] and found.facts["missing"].tolist() == [0, 4, 9]
