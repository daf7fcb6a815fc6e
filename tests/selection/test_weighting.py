"""Scores of several numbers against sums by hand and by Python's exact fractions, orders and limits against sorting."""

from fractions import Fraction
from statistics import median, pstdev

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from select_by import select_by

from deita_train.selection.candidates import Candidates
from deita_train.selection.settings import SelectionSettings
from deita_train.selection.unrankable import outside_limits
from deita_train.selection.weighting import in_order, scaled, weighted_score


def score(scale="z", combine="sum", **weights):
    named = {name: how if isinstance(how, tuple) else (how, "highest") for name, how in weights.items()}
    plain = {name: {"weight": weight, "order": order} for name, (weight, order) in named.items()}
    return {"weights": plain, "scale": scale, "combine": combine}


def numbers(**columns):
    return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}


def kept(rows, by, budget=None, method="weighted", **more):
    trace = select_by(method, rows, budget, score=by, **more)
    return [rows["id"][int(place)] for place in trace.kept]


# Of 1, 2, 3 the mean is 2 and the deviation sqrt(2/3); of 10, 10, 40 they are 20 and sqrt(200).
A, B = [1, 2, 3], [10, 10, 40]


def test_a_sum_of_z_scores_by_hand():
    found = weighted_score(numbers(a=A, b=B), score(a=2.0, b=1.0))
    one, other = (2 / 3) ** 0.5, 200**0.5
    assert found == pytest.approx([-2 / one - 10 / other, -10 / other, 2 / one + 20 / other])


def test_ranks_and_ranges_by_hand():
    # Places: 1/6, 1/2, 5/6; of b 1/3, 1/3, 5/6. Lowest first: 5/6, 1/2, 1/6.
    assert weighted_score(numbers(a=A, b=B), score("rank", a=(1.0, "lowest"), b=3.0)) == pytest.approx(
        [5 / 6 + 1, 1 / 2 + 1, 1 / 6 + 5 / 2]
    )
    assert weighted_score(numbers(a=A, b=B), score("min_max", a=1.0, b=0.5)).tolist() == [0, 0.5, 1.5]
    # 0, 1/2, 1 to the power of 2, times 1/3, 1/3, 5/6 of ranks would mix scales; one scale holds for all.
    assert weighted_score(numbers(a=A, b=B), score("min_max", "product", a=2.0, b=1.0)).tolist() == [0, 0, 1]


def test_a_row_that_lacks_a_number_has_no_score_and_moves_no_scale():
    whole = weighted_score(numbers(a=A, b=B), score(a=1.0, b=1.0))
    found = weighted_score(numbers(a=[1, 99, 2, 3], b=[10, np.nan, 10, 40]), score(a=1.0, b=1.0))
    assert np.isnan(found[1]) and found[[0, 2, 3]].tolist() == whole.tolist()


@pytest.mark.parametrize(("scale", "value"), [("z", 0.0), ("rank", 0.5), ("min_max", 0.5)])
def test_equal_numbers_are_the_middle_of_the_scale(scale, value):
    assert scaled(np.array([7.0, 7.0, 7.0]), scale).tolist() == [value] * 3


def test_the_middle_begins_at_the_median():
    values = np.array([100.0, 1.0, 5.0, 4.0, 2.0])
    ranked = [values[place] for place in np.argsort(-in_order(values, "middle"), kind="stable")]
    assert ranked[0] == median(values.tolist()) == 4.0
    assert set(ranked[:3]) == {2.0, 4.0, 5.0} and set(ranked[3:]) == {1.0, 100.0}


SMALL = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=12)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(SMALL, st.sampled_from(["z", "rank", "min_max"]), st.sampled_from(["highest", "lowest", "middle"]))
def test_agrees_with_a_brute_force_and_does_not_depend_on_the_order(pairs, scale, order):
    def place(values, value):
        return (sum(v < value for v in values) + Fraction(sum(v == value for v in values), 2)) / len(values)

    def on_scale(values):
        if order == "middle":
            values = [-abs(place(values, value) - Fraction(1, 2)) for value in values]
        elif order == "lowest":
            values = [-value for value in values]
        if scale == "rank":
            return [float(place(values, value)) for value in values]
        if len(set(values)) == 1:
            return [0.0 if scale == "z" else 0.5] * len(values)
        if scale == "min_max":
            return [float(Fraction(v - min(values)) / (max(values) - min(values))) for v in values]
        mean = Fraction(sum(values)) / len(values)
        return [float(v - mean) / pstdev(map(float, values)) for v in values]

    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    wanted = [2 * one + 3 * other for one, other in zip(on_scale(a), on_scale(b), strict=True)]
    by = score(scale, a=(2.0, order), b=(3.0, order))
    found = weighted_score(numbers(a=a, b=b), by)
    assert found == pytest.approx(wanted, abs=1e-9)
    back = weighted_score(numbers(b=b[::-1], a=a[::-1]), {**by, "weights": dict(reversed(by["weights"].items()))})
    assert back[::-1].tolist() == found.tolist()  # bit by bit


def pool(**columns):
    size = len(next(iter(columns.values())))
    return datasets.Dataset.from_dict({"id": [f"r{number}" for number in range(size)], **columns})


def test_weights_take_scores_of_the_rows_and_columns_alike():
    rows = pool(complexity_scores=[[2.0], [1.0]], quality_scores=[[1.0], [3.0]], mine=[1.0, 0.0])
    assert kept(rows, score(evol=1.0)) == ["r1", "r0"]  # 2 and 3
    assert kept(rows, score(complexity=1.0)) == ["r0", "r1"]
    assert kept(rows, score(evol=1.0, mine=2.0)) == ["r0", "r1"]
    assert kept(pool(quality=[1.0, 2.0]), score(quality=1.0)) == ["r1", "r0"]  # no scores: the pool's own column


def test_the_repr_filter_walks_by_weighted_numbers():
    rows = pool(mine=[1.0, 3.0, 2.0])
    vectors = np.array([(1, 0), (0, 1), (0.01, 1)], dtype=np.float32)
    assert kept(rows, score(mine=1.0), method="deita", embeddings=vectors) == ["r1", "r0"]


def test_rows_that_are_left_out_later_do_not_move_the_scale():
    rows = pool(a=[0.0, 1.0, 10.0], b=[1.0, 0.0, -50.0])
    whole = Candidates(rows, SelectionSettings("weighted", score=score("min_max", a=1.0, b=1.0)))
    # Among all rows: 0 + 1, 0.1 + 50/51, 1 + 0. Among the first two it would be 0 + 1 and 1 + 0.
    assert whole.subset([0, 1]).scores == pytest.approx([1.0, 0.1 + 50 / 51])


def test_limits_are_quantiles_of_the_rows_that_have_the_number():
    candidates = Candidates(pool(n=[1.0, 2.0, None, 3.0, 4.0, 5.0], m=[0.0] * 6), SelectionSettings("random"))
    out, lacking = "outside_limits", "no_limited_number"
    assert outside_limits(candidates, {"n": [0.25, 0.75]}) == [out, None, lacking, None, None, out]  # 2 to 4
    assert outside_limits(candidates, {"n": [0.0, 1.0], "m": [0.1, 0.9]}) == [None, None, lacking, None, None, None]
    assert outside_limits(candidates, {}) == [None] * 6


def test_numbers_inside_a_column_of_objects():
    rows = pool(outer=[{"IFD": 1, "deep": {"x": 0.5}}, {"IFD": 2, "deep": {"x": None}}])
    assert Candidates(rows, SelectionSettings("random")).numbers_of("outer.IFD").tolist() == [1, 2]
    assert np.isnan(Candidates(rows, SelectionSettings("random")).numbers_of("outer.deep.x")).tolist() == [False, True]


def test_the_longest_response_in_tokens():
    rows = pool(messages=[[{"role": "assistant", "content": "a" * n}] for n in (9, 5, 7)], answer_tokens=[2, 4, 4])
    assert kept(rows, "evol", method="longest_response") == ["r0", "r2", "r1"]
    assert kept(rows, "evol", method="longest_response", unit="tokens") == ["r1", "r2", "r0"]
