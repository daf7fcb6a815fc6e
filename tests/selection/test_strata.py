"""Dividing a budget among strata: quotas by hand and by exact fractions, and the method within each stratum."""

from fractions import Fraction
from math import floor

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from select_by import select_by

from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates
from deita_train.selection.select_rows import select_rows
from deita_train.selection.settings import SelectionSettings
from deita_train.selection.strata import divided, quota_of, select_by_strata, strata_of, without_stratum


def test_quotas_by_hand():
    assert quota_of({"a": 1, "b": 1, "c": 1}, 8) == {"a": 3, "b": 3, "c": 2}  # equal remainders: the first names
    assert quota_of({"a": 5, "b": 3, "c": 2}, 7) == {"a": 4, "b": 2, "c": 1}  # 3.5, 2.1, 1.4
    assert quota_of({"a": 0.0, "b": 0.1}, 3) == {"a": 0, "b": 3}


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(0, 40))
def test_quotas_are_largest_remainders(weights, budget):
    names = "abcdef"[: len(weights)]
    exact = [Fraction(budget * weight, sum(weights)) for weight in weights]
    wanted = [floor(number) for number in exact]
    for place in sorted(range(len(exact)), key=lambda p: (wanted[p] - exact[p], p))[: budget - sum(wanted)]:
        wanted[place] += 1
    assert list(quota_of(dict(zip(names, weights, strict=True)), budget).values()) == wanted


def test_what_one_cannot_fill_goes_to_the_others_by_their_shares():
    weights, sizes = {"a": 1.0, "b": 2.0, "c": 1.0}, {"a": 1, "b": 9, "c": 9}
    # 2, 4, 2; one of a's two rows is left over and goes to b, whose share is the larger: 2/3 against 1/3.
    assert divided(weights, sizes, 8, dict.fromkeys(weights, 0)) == {"a": 1, "b": 5, "c": 2}
    assert divided(weights, sizes, 30, dict.fromkeys(weights, 0)) == sizes
    assert divided({**weights, "b": 0.0}, sizes, 30, dict.fromkeys(weights, 0)) == {"a": 1, "b": 0, "c": 9}


def pool(values, scores):
    columns = {"id": [f"r{number:02}" for number in range(len(values))], "source": values, "value": scores}
    return datasets.Dataset.from_dict(columns)


def stratified(rows, budget, share, method="direct_score", embeddings=None, tokens=None, **more):
    candidates = Candidates(rows, SelectionSettings(method, column="value", **more), embeddings)
    names = strata_of(candidates, {"by": "source"})
    prefixes = candidates.settings.rules.prefixes
    return select_by_strata(candidates, names, budget, share, select_rows, prefixes=prefixes, tokens=tokens)


def kept(rows, found):
    return [rows["id"][int(place)] for place in found.trace.kept]


def test_the_best_of_each_stratum_ranked_in_step():
    rows = pool(list("aaaabbcc"), [1, 2, 3, 4, 9, 8, 0, 7])
    found = stratified(rows, 6, "equal")
    # a: r03 r02, b: r04 r05, c: r07 r06; each stratum's first before each one's second.
    assert kept(rows, found) == ["r03", "r04", "r07", "r02", "r05", "r06"]
    assert found.counts["a"] == {"rows": 4, "quota": 2, "selected": 2}
    # a has 2 of 4: after a quarter and three quarters of its own, around the others' halves.
    assert kept(rows, stratified(rows, 4, "proportional")) == ["r03", "r04", "r07", "r02"]
    found = stratified(rows, 5, {"a": 0, "b": 1, "c": 3})
    assert found.counts == {
        "a": {"rows": 4, "quota": 0, "selected": 0},
        "b": {"rows": 2, "quota": 1, "selected": 2},
        "c": {"rows": 2, "quota": 4, "selected": 2},
    }


def test_what_the_filter_passes_over_is_given_on():
    # a's rows are copies, so deita keeps one of them; b's and c's are all different.
    rows = pool(list("aaabbbccc"), [9.0, 8, 7, 6, 5, 4, 3, 2, 1])
    rows = rows.add_column("quality_scores", [[value] for value in rows["value"]])
    vectors = np.concatenate([np.ones((3, 8)), np.eye(8)[:6]]).astype(np.float32)
    settings = {"method": "deita", "score": "quality", "threshold": 0.9, "embeddings": vectors}
    found = stratified(rows, 6, "equal", **settings)
    assert [of["selected"] for of in found.counts.values()] == [1, 3, 2]
    assert set(kept(rows, found)) == {"r00", "r03", "r04", "r05", "r06", "r07"}
    assert found.trace.blocked_by[[1, 2]].tolist() == [0, 0]
    assert [of["selected"] for of in stratified(rows, 9, "equal", **settings).counts.values()] == [1, 3, 3]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=20), st.integers(1, 25))
def test_each_part_is_what_the_method_selects_of_it(pairs, budget):
    rows = pool([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    found = stratified(rows, budget, "equal")
    assert found.trace.num_kept == min(budget, len(pairs))
    for name, of in found.counts.items():
        part = rows.filter(lambda source, name=name: source == name, input_columns=["source"])
        alone = select_by("direct_score", part, of["selected"], column="value") if of["selected"] else None
        wanted = [] if alone is None else [part["id"][int(place)] for place in alone.kept]
        assert [row for row in kept(rows, found) if row in set(part["id"])] == wanted
    shuffled = rows.shuffle(seed=1)
    assert kept(shuffled, stratified(shuffled, budget, "equal")) == kept(rows, found)


@pytest.mark.parametrize("method", ["kmeans", "random", "k_center", "longest_response"])
def test_any_method_fills_the_budget(method):
    rng = np.random.default_rng(0)
    rows = pool(["a"] * 30 + ["b"] * 4, rng.standard_normal(34).tolist())
    rows = rows.add_column("quality_scores", [[1.0]] * 34)
    rows = rows.add_column("messages", [[{"role": "assistant", "content": "x" * (n % 5)}] for n in range(34)])
    vectors = rng.standard_normal((34, 4)).astype(np.float32)
    found = stratified(rows, 20, "equal", method=method, embeddings=vectors, seed=1, score="quality")
    assert [of["selected"] for of in found.counts.values()] == [16, 4]


def test_strata_with_the_same_questions_in_the_same_order_are_drawn_apart():
    rows = pool([name for name in "abcd" for _ in range(50)], [0.0] * 200)
    found = stratified(rows, 40, "equal", method="random", seed=1)
    places = [{int(place) % 50 for place in found.trace.kept if int(place) // 50 == stratum} for stratum in range(4)]
    assert [len(of) for of in places] == [10] * 4
    assert all(places[one] != places[other] for one in range(4) for other in range(one))
    assert kept(rows, stratified(rows, 40, "equal", method="random", seed=2)) != kept(rows, found)
    assert kept(rows, stratified(rows, 40, "equal", method="random", seed=1)) == kept(rows, found)


def test_clusters_are_numbered_by_their_first_id():
    vectors = np.array([(0, 1), (1, 0), (0.01, 1), (1, 0.01)], dtype=np.float32)
    candidates = Candidates(pool(list("aaaa"), [0.0] * 4), SelectionSettings("random"), vectors)
    how = {"by": "embedding_clusters", "clusters": 2, "seed": 0}
    assert strata_of(candidates, how) == ["cluster 0", "cluster 1", "cluster 0", "cluster 1"]


def test_rows_without_a_value_and_columns_that_name_no_strata():
    candidates = Candidates(pool(["a", None, "b"], [0.5, 1.0, 2.0]), SelectionSettings("random"))
    assert without_stratum(candidates, {"by": "source"}) == [None, "no_stratum", None]
    assert without_stratum(candidates, None) == [None] * 3
    with pytest.raises(UserError, match="column 'value' holds neither texts nor whole numbers"):
        without_stratum(candidates, {"by": "value"})
    with pytest.raises(UserError, match="no column 'domain' to take strata from; it has id, source, value"):
        without_stratum(candidates, {"by": "domain"})


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"a": 1}, r"has none for b \(state 0 to keep no row\)"),
        ({"a": 1, "b": 1, "z": 1}, "names z, of which no row can be selected"),
        ({"a": 0, "b": 0}, "every share is 0"),
    ],
)
def test_a_share_for_each_stratum(share, message):
    with pytest.raises(UserError, match=message):
        stratified(pool(list("ab"), [1, 2]), 1, share)


def test_a_budget_of_tokens_by_hand():
    rows = pool(list("aaaabbcc"), [1, 2, 3, 4, 9, 8, 0, 7])
    tokens = np.array([5, 5, 5, 5, 9, 1, 30, 2])
    # Quotas of 10 each. a: r03 r02; b: r04 r05; c: r07, then r06 with 30 would exceed it, and its 8 go to nobody.
    found = stratified(rows, 30, "equal", tokens=tokens)
    assert kept(rows, found) == ["r03", "r04", "r07", "r02", "r05"]
    assert found.counts == {
        "a": {"rows": 4, "quota": 10, "selected": 2, "tokens": 10},
        "b": {"rows": 2, "quota": 10, "selected": 2, "tokens": 10},
        "c": {"rows": 2, "quota": 10, "selected": 1, "tokens": 2},
    }
    assert found.met
    # Of 60, b has 10 only, and a 20 only: c gets the other 30, within which r06 does not fit beside r07.
    found = stratified(rows, 60, "equal", tokens=tokens)
    assert [of["tokens"] for of in found.counts.values()] == [20, 10, 2] and found.met
    # By tokens a has 20, b 10 and c 32 of 62.
    found = stratified(rows, 31, "proportional", tokens=tokens)
    assert [of["quota"] for of in found.counts.values()] == [10, 5, 16]
    # b's first row, r04 with 9, exceeds its 5.
    assert [of["selected"] for of in found.counts.values()] == [2, 0, 1]
    found = stratified(rows, 99, "equal", tokens=tokens)
    assert found.trace.num_kept == 8 and not found.met
    with pytest.raises(UserError, match="the budget is 3 tokens, and in no stratum is the first row within its share"):
        stratified(rows, 3, "equal", tokens=tokens)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=15),
    st.integers(1, 60),
)
def test_each_part_of_a_budget_of_tokens_is_a_beginning_of_the_method(rows_of, budget):
    rows = pool([row[0] for row in rows_of], [row[1] for row in rows_of])
    tokens = np.array([row[2] for row in rows_of])
    try:
        found = stratified(rows, budget, "equal", tokens=tokens)
    except UserError:
        # No stratum's first row is within what the others leave it.
        firsts = {}
        for row in sorted(range(len(rows_of)), key=lambda place: (-rows_of[place][1], place)):
            firsts.setdefault(rows_of[row][0], int(tokens[row]))
        assert all(first > budget // len(firsts) for first in firsts.values())
        return
    total = sum(of["tokens"] for of in found.counts.values())
    assert total == tokens[found.trace.kept].sum() <= budget
    assert found.met == (min(budget, tokens.sum()) == budget)
    order = sorted(range(len(rows_of)), key=lambda place: (-rows_of[place][1], place))
    for name, of in found.counts.items():
        own = [place for place in order if rows_of[place][0] == name]
        assert [place for place in found.trace.kept if rows_of[place][0] == name] == own[: of["selected"]]
        # It ends at a row that exceeds its quota, or has no more.
        if of["selected"] < len(own):
            assert of["tokens"] + tokens[own[of["selected"]]] > min(of["quota"], tokens[own].sum())
