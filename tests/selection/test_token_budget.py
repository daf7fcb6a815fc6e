"""A budget in training tokens against adding up rows one after the other."""

from functools import partial

import numpy as np
import pytest
from embedded_pools import embedded, has_directions, scored
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from select_by import select_by

from deita_train.errors import UserError
from deita_train.selection.repr_filter.sufficient_threshold import sufficient_threshold
from deita_train.selection.token_budget import rows_within, trained_lengths, walk_tokens

checked = partial(settings, derandomize=True, deadline=None, max_examples=60)


def test_rows_within_by_hand():
    lengths = np.array([5, 3, 0, 4])
    assert [rows_within(lengths, tokens) for tokens in (4, 5, 7, 8, 11, 12, 99)] == [0, 1, 1, 3, 3, 4, 4]


def test_trained_lengths_by_hand():
    num_tokens, first_trained = np.array([10, 10, 3, 8]), np.array([2, 7, 1, -1])
    assert trained_lengths(num_tokens, first_trained, 5).tolist() == [5, 0, 3, 0]  # the second is cut before its answer
    assert trained_lengths(num_tokens, first_trained, 7).tolist() == [7, 0, 3, 0]
    assert trained_lengths(num_tokens, first_trained, 8).tolist() == [8, 8, 3, 0]
    assert trained_lengths(num_tokens, first_trained, None).tolist() == [10, 10, 3, 0]


def brute_force(kept, lengths, tokens):
    """How many of these rows, first to last, until the next would exceed the tokens."""
    number = total = 0
    for row in kept:
        if total + lengths[row] > tokens:
            return number, True
        number, total = number + 1, total + int(lengths[row])
    return number, total == tokens


def same(first, second):
    return all(
        np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
        for one, two in zip(vars(first).values(), vars(second).values(), strict=True)
    )


METHODS = st.sampled_from(
    [("deita", {"threshold": 0.5}), ("quality", {}), ("k_center", {}), ("facility_location", {"quality_weight": 0.5})]
)


@checked()
@given(pool=embedded(), method=METHODS, data=st.data())
def test_a_walk_to_a_number_of_tokens_is_that_to_the_rows_they_are(pool, method, data):
    ids, embeddings, quality = pool
    name, more = method
    assume(has_directions(embeddings, False))
    lengths = np.array(data.draw(st.lists(st.integers(0, 50), min_size=len(ids), max_size=len(ids))))
    tokens = data.draw(st.integers(1, max(1, int(lengths.sum()) + 20)))
    walks = []

    def walk(num_rows, earlier):
        walks.append(num_rows)
        rows = scored(ids, quality)
        return select_by(name, rows, num_rows, embeddings, earlier, score="quality", **more)

    whole = walk(len(ids), None)
    number, full = brute_force(whole.kept, lengths, tokens)
    if number == 0:
        with pytest.raises(
            UserError, match=f"the budget is {tokens:,} tokens, and the first row of the selection alone has"
        ):
            walk_tokens(walk, lengths, tokens)
        return
    earlier = data.draw(st.sampled_from([None, 1, len(ids)]))
    before = None if earlier is None else walk(earlier, None)
    trace, is_full = walk_tokens(walk, lengths, tokens, before)
    assert is_full == full
    assert same(trace, walk(number if full else len(ids), None))
    # Budgets nest: with fewer tokens the kept rows are the first of these.
    fewer = data.draw(st.integers(1, tokens))
    if lengths[whole.kept[0]] <= fewer:
        small, _ = walk_tokens(walk, lengths, fewer)
        assert small.kept.tolist() == trace.kept[: small.num_kept].tolist()


def test_it_takes_few_walks():
    """Long rows first: the mean length promises too many; short rows first: too few."""
    for scores in (np.arange(300.0), -np.arange(300.0)):
        lengths, asked = np.arange(1, 301), []

        def walk(num_rows, earlier, scores=scores, asked=asked):
            asked.append(num_rows)
            rows = scored([f"{row:03}" for row in range(300)], scores)
            return select_by("quality", rows, num_rows, earlier=earlier)

        trace, _ = walk_tokens(walk, lengths, 10_000)
        assert lengths[trace.kept].sum() <= 10_000
        assert len(asked) <= 4


def test_a_sufficient_threshold_for_tokens_by_hand():
    # At 0, 10, 90 and 95 degrees, walked in this order, of 4 tokens each: 12 tokens are three rows.
    angles = np.radians([0, 10, 90, 95])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    find = partial(sufficient_threshold, circle, list("abcd"), -np.arange(4.0), lengths=np.full(4, 4))
    assert [find(budget=tokens).threshold for tokens in (8, 12, 16)] == [-0.087, 0.985, 0.997]
    assert find(budget=12, above=0.9).num_seen == 3
    with pytest.raises(UserError, match="the budget is 17 and the pool has only 16 tokens"):
        find(budget=17)
    told = []
    find(budget=12, above=0.9, progress=lambda walks, most: told.append((walks, most)))
    assert told == [(number, 7) for number in range(len(told))] and len(told) in (6, 7)
