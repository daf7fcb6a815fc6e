"""A walk that is told its rows block by block decides as one that knows all of them, and asks for no row in vain."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from repr_filter_reference import assert_same, ids_for
from test_repr_filter import GOLDEN, golden_pool
from test_repr_filter_properties import checked, pools, usable

from deita_train.errors import UserError
from deita_train.selection.repr_filter.block_walk import BlockWalk
from deita_train.selection.repr_filter.repr_filter import Trace, repr_filter, walk_order
from deita_train.selection.token_budget import walk_tokens


def by_blocks(embeddings, ids, scores, *, budget, threshold, tokens=None, multiple=1):
    """The trace over all rows of a walk whose blocks are whole multiples, and how many rows each block reached."""
    order = walk_order(ids, scores)
    of_walk = None if tokens is None else tokens[order]
    walk = BlockWalk([ids[place] for place in order], scores[order], budget, threshold, of_walk)
    reached = []
    while walk.wanted() > walk.num_known:
        reached.append(min(len(ids), -(-walk.wanted() // multiple) * multiple))
        walk.take(embeddings[order][: reached[-1]])
    return walk._trace.within(order[: walk.num_known], len(ids)), reached


@pytest.mark.parametrize("multiple", [1, 7, 64])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_cases(name, multiple):
    embeddings, ids, scores, expected = golden_pool(name)
    budget = len(ids) if expected["budget"] == -1 else expected["budget"]
    options = {"budget": budget, "threshold": expected["threshold"]}
    trace, reached = by_blocks(embeddings, ids, scores, **options, multiple=multiple)
    assert [ids[place] for place in trace.kept] == expected["selected_ids_in_order"]
    whole = repr_filter(embeddings, ids, scores, **options)
    assert_same(trace, whole)
    assert whole.num_seen <= reached[-1] <= len(ids)


@checked(max_examples=100)
@given(
    pool=pools(),
    threshold=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    budget=st.integers(1, 45),
    multiple=st.sampled_from([1, 3, 16]),
)
def test_every_decision_is_that_of_a_walk_over_all_rows(pool, threshold, budget, multiple):
    embeddings, ids, scores = pool
    assume(usable(embeddings))
    trace, reached = by_blocks(embeddings, ids, scores, budget=budget, threshold=threshold, multiple=multiple)
    assert_same(trace, repr_filter(embeddings, ids, scores, budget=budget, threshold=threshold))
    assert reached == sorted(set(reached)) and reached[0] == min(
        len(ids), -(-min(budget, len(ids)) // multiple) * multiple
    )


@checked(max_examples=100)
@given(
    pool=pools(),
    threshold=st.sampled_from([0.5, 0.9, 1.0]),
    budget=st.integers(1, 120),
    multiple=st.sampled_from([1, 8]),
    seed=st.integers(0, 1000),
)
def test_a_budget_of_tokens_is_met_within_the_known_rows(pool, threshold, budget, multiple, seed):
    embeddings, ids, scores = pool
    assume(usable(embeddings))
    tokens = np.random.default_rng(seed).integers(0, 9, len(ids))
    assume(all(tokens[place] <= budget for place in range(len(ids))))

    def over_all(rows, earlier):
        return repr_filter(embeddings, ids, scores, budget=rows, threshold=threshold, earlier=earlier)

    whole, is_met = walk_tokens(over_all, tokens, budget)
    trace, reached = by_blocks(
        embeddings, ids, scores, budget=budget, threshold=threshold, tokens=tokens, multiple=multiple
    )
    assert is_met or reached[-1] == len(ids)
    kept = trace.kept[: whole.num_kept]
    assert kept.tolist() == whole.kept.tolist()
    # The row that ends the budget is known, if there is one.
    assert reached[-1] == len(ids) or tokens[trace.kept].sum() > budget


def test_blocks_follow_the_budget_and_what_the_last_block_brought():
    # Ten directions; the rows go round and round, so that after ten rows nothing new comes, until row 60.
    angles = np.concatenate([np.arange(60) % 10 * 0.1, 2.0 + 0.1 * np.arange(10)])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    scores = np.arange(70, 0, -1).astype(np.float64)
    trace, reached = by_blocks(embeddings, ids_for(70), scores, budget=15, threshold=np.cos(0.05))
    # 15 rows keep 10 and leave 5: at 10 of 15 that is 8 more rows. These keep none, so what is known is doubled: 46.
    # So it is again, as far as the pool goes: 70, of which the walk ends at row 65.
    assert reached == [15, 23, 46, 70]
    assert trace.num_kept == 15 and trace.num_seen == 65


def test_a_budget_beyond_the_pool_ends_with_the_pool():
    embeddings = np.eye(5, dtype=np.float32)
    trace, reached = by_blocks(embeddings, ids_for(5), np.ones(5), budget=9, threshold=0.9)
    assert reached == [5] and trace.num_kept == 5


def test_the_first_block_of_tokens_goes_to_the_row_that_must_end_it():
    walk = BlockWalk(ids_for(5), np.ones(5), 10, 0.9, np.array([4, 6, 0, 3, 5]))
    assert walk.wanted() == 4  # 4 + 6 + 0 fill the budget, and 3 more exceed it
    assert BlockWalk(ids_for(2), np.ones(2), 10, 0.9, np.array([4, 5])).wanted() == 2


def test_an_unseen_row_may_have_no_direction_and_a_seen_one_is_named():
    embeddings = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    walk = BlockWalk(["a", "b", "c"], np.array([3.0, 2.0, 1.0]), 2, 0.9)
    walk.take(embeddings[: walk.wanted()])
    assert walk.is_over and walk.num_seen == 2
    bad = BlockWalk(["a", "b", "c"], np.array([3.0, 2.0, 1.0]), 3, 0.9)
    with pytest.raises(UserError, match="Rows: 'c'"):
        bad.take(embeddings)


def test_a_trace_of_no_row_is_empty():
    assert Trace.empty(0).num_seen == 0 and BlockWalk([], np.empty(0), 3, 0.9).is_over
