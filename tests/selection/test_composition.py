from functools import partial

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.selection.measures import composition
from deita_train.selection.measures.composition import (
    conversation_sizes,
    jaccard,
    share_beyond,
    source_shares,
    spread,
    total_variation,
)
from deita_train.selection.trace.trace_columns import QUANTILES

checked = partial(settings, derandomize=True, deadline=None, max_examples=60)


def test_spread_by_hand():
    # Of 0, 10, 20, 30, 40 the quantile q lies at index 4q.
    found = spread(np.array([40, 0, 20, 10, 30]))
    assert (found.mean, found.median) == (20, 20)
    assert QUANTILES == (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
    assert found.quantiles == pytest.approx((0, 4, 10, 20, 30, 36, 40))


def test_share_beyond_by_hand():
    # Of 10 + 2 + 5 = 17, 6 and 1 lie beyond 4.
    assert share_beyond(np.array([10, 2, 5]), 4) == pytest.approx(7 / 17)
    assert share_beyond(np.array([10, 2, 5]), 10) == 0
    assert share_beyond(np.array([10, 2, 5]), 0) == 1


@checked()
@given(lengths=st.lists(st.integers(0, 500), min_size=1).filter(any), limit=st.integers(0, 500))
def test_share_beyond_agrees_with_counting(lengths, limit):
    beyond = sum(place >= limit for length in lengths for place in range(length))
    assert share_beyond(np.array(lengths), limit) == pytest.approx(beyond / sum(lengths))


def test_sources_by_hand():
    pool = source_shares(["b", "a", "a", "c", "b"])
    assert list(pool.items()) == [("a", 0.4), ("b", 0.4), ("c", 0.2)]
    assert total_variation(pool, source_shares(["a"])) == pytest.approx(0.6)
    assert total_variation(pool, source_shares(["c", "d"])) == pytest.approx((0.4 + 0.4 + 0.3 + 0.5) / 2)
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1


sources = st.lists(st.sampled_from("abcd"), min_size=1, max_size=30)


@checked()
@given(mine=sources, others=sources)
def test_total_variation_is_the_greatest_difference_over_all_sets_of_sources(mine, others):
    shares, other_shares = source_shares(mine), source_shares(others)
    events = [[s for s, bit in zip("abcd", f"{i:04b}", strict=True) if bit == "1"] for i in range(16)]
    differences = [sum(shares.get(s, 0) - other_shares.get(s, 0) for s in event) for event in events]
    distance = total_variation(shares, other_shares)
    assert distance == pytest.approx(max(differences), abs=1e-12)
    assert distance == total_variation(other_shares, shares)
    assert 0 <= distance <= 1 + 1e-12
    assert sum(shares.values()) == pytest.approx(1)


def test_jaccard_by_hand():
    found = jaccard([{"a", "b", "c"}, {"b", "c", "d", "e"}, set(), {"x"}])
    assert found.tolist() == [[1, 0.4, 0, 0], [0.4, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert jaccard([]).shape == (0, 0)
    assert jaccard([set(), set()]).tolist() == [[1, 1], [1, 1]]


@checked()
@given(st.lists(st.frozensets(st.integers(0, 8)), max_size=5))
def test_jaccard_is_symmetric_and_one_for_equal_sets_alone(subsets):
    found = jaccard([{str(item) for item in subset} for subset in subsets])
    assert (found == found.T).all() and (found >= 0).all() and (found <= 1).all()
    assert all((found[i, k] == 1) == (a == b) for i, a in enumerate(subsets) for k, b in enumerate(subsets))


def conversations(*texts):
    """One conversation per tuple: (role letter, content) pairs."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return datasets.Dataset.from_dict(
        {"messages": [[{"role": roles[r], "content": content} for r, content in row] for row in texts]}
    )


def test_conversation_sizes_by_hand(monkeypatch):
    rows = conversations(
        [("u", "héy"), ("a", "yes")],
        [("s", "s"), ("u", "\N{SLIGHTLY SMILING FACE}"), ("a", "b"), ("u", "cc")],
        [("u", ""), ("a", "x" * 1000)],
    )
    monkeypatch.setattr(composition, "ROWS_PER_READ", 2)
    for order in ([0, 1, 2], [2, 0, 1], [1]):
        characters, turns = conversation_sizes(rows.select(order))
        assert characters.tolist() == [[6, 5, 1000][i] for i in order]
        assert turns.tolist() == [[1, 2, 1][i] for i in order]
        assert characters.dtype == turns.dtype == np.int64
