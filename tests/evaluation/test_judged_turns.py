"""Turns, scores and figures of MT-Bench, against hand computation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import PAIR, RATE, own_prompts
from deita_train.evaluation.judged_turns import (
    Question,
    Score,
    TurnToJudge,
    check_questions,
    figures,
    outcome_of,
    turns_to_judge,
)
from deita_train.evaluation.results import mean_of_groups, mean_result
from deita_train.evolve.reading import Unusable

MATH = Question("1", ("2+2?", "and 3?"), "math", ("4", "7"))
WRITING = Question("2", ("Write.", "Shorter."), "writing", ())


def test_every_turn_is_judged_with_the_answers_before_it():
    answers = {("1", 0): "four", ("1", 1): "seven", ("2", 0): "text", ("2", 1): None}
    found = list(turns_to_judge([MATH, WRITING], answers, None))
    assert [one.id for one in found] == ["1/1", "1/2", "2/1", "2/2"]
    assert found[1].answers == ("four", "seven")
    assert [(turn.question, turn.reference, turn.answers) for turn in found[1].shown()] == [
        ("2+2?", "4", ("four",)),
        ("and 3?", "7", ("seven",)),
    ]
    assert found[3] == Score(WRITING, 1, None, "no_answer")


def test_pairs_are_shown_in_both_orders_and_need_both_answers():
    answers = {("1", 0): "", ("1", 1): "seven"}
    baseline = {("1", 0): "theirs", ("1", 1): None}
    first, second = turns_to_judge([MATH], answers, baseline)
    assert isinstance(first, TurnToJudge)
    assert [turn.answers for turn in first.shown(True)] == [("", "theirs")]
    assert [turn.answers for turn in first.shown(False)] == [("theirs", "")]
    assert second == Score(MATH, 1, None, "no_baseline_answer")


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        (("first", "second"), 1.0),  # the model in both orders
        (("second", "first"), 0.0),
        (("first", "first"), 0.5),  # whoever stands first
        (("tie", "second"), 0.5),
        (("first", "tie"), 0.5),
        (("tie", "tie"), 0.5),
    ],
)
def test_a_win_is_one_in_both_orders(verdicts, outcome):
    assert outcome_of(verdicts) == outcome


def test_a_pair_with_a_verdict_that_cannot_be_read_has_no_score():
    unusable = Unusable("no_verdict", "")
    assert outcome_of(("first", unusable)) == unusable == outcome_of((unusable, "tie"))


def scores(*values):
    """Two turns of each question in turn."""
    questions = [MATH, WRITING]
    return [
        Score(questions[place // 2], place % 2, value, None if value is not None else "no_rating")
        for place, value in enumerate(values)
    ]


def test_figures_of_ratings():
    found = figures(scores(9.0, 4.0, 7.0, None), RATE)
    assert list(found) == ["overall", "turn 1", "turn 2", "math", "writing"]
    assert {name: result.value for name, result in found.items()} == {
        "overall": pytest.approx(20 / 3), "turn 1": 8.0, "turn 2": 4.0, "math": 6.5, "writing": 7.0
    }  # fmt: skip
    assert [found[name].questions for name in found] == [2, 2, 1, 1, 1]
    assert found["turn 2"].low is None and 6.5 <= found["overall"].low <= found["overall"].high <= 7.0
    assert figures(scores(None, None, None, None), RATE) == {}


def test_figures_of_pairs():
    found = figures(scores(1.0, 0.5, 0.0, 0.0), PAIR)
    assert [(name, found[name].value) for name in list(found)[:4]] == [
        ("win rate, ties half", 0.375), ("won", 0.25), ("tied", 0.25), ("lost", 0.5)
    ]  # fmt: skip
    assert found["lost"].higher_is_better is False and found["tied"].higher_is_better is None


def test_questions_of_one_turn_without_categories_have_one_figure():
    plain = Question("q", ("What?",), None, ())
    assert list(figures([Score(plain, 0, 3.0, None)], RATE)) == ["overall"]


@given(st.lists(st.floats(1, 10), min_size=1, max_size=20))
def test_groups_of_one_have_the_figures_of_single_values(values):
    alone, grouped = mean_result(values, "score", 3), mean_of_groups([[value] for value in values], "score", 3)
    assert grouped.value == pytest.approx(alone.value)
    assert (grouped.low, grouped.high) == (alone.low, alone.high) or np.allclose(
        [grouped.low, grouped.high], [alone.low, alone.high]
    )


def test_groups_are_resampled_whole():
    """By brute force: all nine draws of two of these groups give 1, 5 or 23/7, each a mean over all their values."""
    found = mean_of_groups([[1.0, 1.0, 1.0], [5.0] * 4], "score")
    assert found.value == pytest.approx(23 / 7)
    assert (found.low, found.high, found.questions) == (1.0, 5.0, 2)


def test_categories_of_mt_bench_need_their_references():
    prompts = own_prompts(RATE)
    check_questions([MATH, WRITING], prompts, references_needed=True)
    half = Question("7", ("2+2?", "and 3?"), "reasoning", ("4", None))
    check_questions([half], prompts, references_needed=False)
    with pytest.raises(UserError, match=r"question 7 \(reasoning\) has no reference answer to turn 2"):
        check_questions([half], prompts, references_needed=True)


def test_fastchat_prompts_know_two_turns():
    long = Question("9", ("a", "b", "c"), None, ())
    prompts = own_prompts(RATE)
    check_questions([long], prompts, references_needed=True)
    with pytest.raises(UserError, match="question 9 has 3 turns, and FastChat's prompts know two"):
        check_questions([long], type(prompts)(RATE, {}, fastchat=True), references_needed=True)
