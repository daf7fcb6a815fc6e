import json
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import answered, chain_of, ranking_of

from deita_train.evolve.operations import order_of
from deita_train.evolve.prompts import read_prompts
from deita_train.evolve.ranking import (
    calls_per_seed,
    good_versions,
    is_settled,
    judge_ranking,
    last_attempts,
    nearest_level,
    ranking_request,
)
from deita_train.llm.answers import Failure
from deita_train.llm.requests import ChatRequest


def judged(answer, order=(2, 0, 1)):
    return judge_ranking(answer, order, seed_id="row-1", round=1, attempt=2)


def test_the_good_versions_are_ranked():
    chain = chain_of("row-1", ("ok", "empty", "ok"))
    assert good_versions(chain) == [chain[0], chain[2]]


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_a_request_lists_the_versions_in_the_drawn_order(dimension):
    prompts = read_prompts(dimension, None)
    versions = chain_of("row-1", ("ok",) * 3, dimension)
    request = ranking_request(prompts, versions, [2, 0, 1], attempt=1, temperature=0.5, max_tokens=77)
    word = "task" if dimension == "complexity" else "answer"
    listed = [f"row-1 {word} {step}" for step in (2, 0, 1)]
    content = prompts.render_ranking(listed, instruction="row-1 task 0")
    assert request == ChatRequest(({"role": "user", "content": content},), 0.5, 77, True, 1)
    assert [content.index(f"[{number}]") < content.index(text) for number, text in enumerate(listed, 1)] == [True] * 3


def test_the_scores_come_back_in_the_order_of_the_chain():
    # Listed first is version 2, which gets 6; version 0 gets 1 and version 1 gets 3.
    ranking = judged(answered('{"1": 6, "2": 1, "3": 3}'))
    assert ranking.scores == (1, 3, 6)
    assert (ranking.seed_id, ranking.round, ranking.attempt, ranking.order) == ("row-1", 1, 2, (2, 0, 1))
    assert (ranking.status, ranking.raw) == ("ok", '{"1": 6, "2": 1, "3": 3}')


@given(st.text(), st.integers(0, 3), st.lists(st.integers(1, 6), min_size=2, max_size=2))
def test_a_judge_that_knows_the_truth_is_understood_in_every_order(seed_id, round, more):
    truth = (1, 6, *more)
    order = order_of(seed_id, round, len(truth), 3)
    answer = json.dumps({str(number): truth[position] for number, position in enumerate(order, 1)})
    assert judge_ranking(answered(answer), order, seed_id=seed_id, round=round, attempt=0).scores == truth


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (answered("1: 3\n2: 4"), "missing_item"),
        (answered("1: 3\n2: 3\n3: 3"), "all_tied"),
        (answered("1: 3\n2: 4", "length"), "cut_off"),
        (answered("", "content_filter"), "filtered"),
        (Failure("server_error", "500"), "failed_server_error"),
    ],
)
def test_an_unusable_answer_has_its_reason(answer, status):
    ranking = judged(answer)
    assert (ranking.scores, ranking.status) == (None, status)
    assert ranking.raw == (None if isinstance(answer, Failure) else answer.text)


def test_an_answer_cut_off_behind_all_scores_counts():
    assert judged(answered('{"1": 6, "2": 1, "3": 3} The first one is', "length")).scores == (1, 3, 6)


def test_of_a_round_the_last_attempt_counts():
    first, again = ranking_of("a", [1, 2], 0, 0, "no_scores"), ranking_of("a", [1, 2], 0, 1)
    other, failed = ranking_of("a", [2, 1], 1, 0), ranking_of("b", [1, 2], 0, 0, "all_tied")
    assert last_attempts([first, other, again, failed]) == [again, other, failed]
    assert last_attempts([again, first]) == [again]


@pytest.mark.parametrize(
    ("scores", "level"),
    [
        ([3], 3),
        ([1, 2], 2),
        ([2, 3], 3),
        ([1, 1, 2], 1),
        ([1, 2, 2], 2),
        ([6, 6, 5], 6),
        ([1, 1, 1, 3], 2),
        ([5, 6], 6),
    ],
)
def test_the_nearest_level_a_half_up(scores, level):
    assert nearest_level(scores) == level


@given(st.lists(st.integers(1, 6), min_size=1, max_size=9))
def test_the_nearest_level_is_exact(scores):
    assert nearest_level(scores) == floor(Fraction(sum(scores), len(scores)) + Fraction(1, 2))


@pytest.mark.parametrize(
    ("status", "settled"),
    [("ok", True), ("no_scores", False), ("cut_off", False), ("failed_deadline", True), ("filtered", True)],
)
def test_a_call_that_failed_is_not_asked_again(status, settled):
    assert is_settled(ranking_of("a", [1, 2], 0, 0, status)) == settled


def test_calls_by_hand():
    # Five evolutions and one ranking; with three orders, each asked up to three times: 5 + 3 and 5 + 9.
    assert calls_per_seed(5, 1, 0) == (6, 6)
    assert calls_per_seed(5, 3, 2) == (8, 14)
