"""AlpacaEval's preferences and win rates, by hand and on published annotations."""

import gzip
import json
import math

import pytest

from deita_train.evaluation.alpaca_eval import (
    Comparison,
    comparison_request,
    model_is_first,
    outputs_row,
    share_of,
    shares_of_preferences,
    win_rate,
)
from deita_train.evaluation.judge_prompts import COMPARE, own_prompts
from deita_train.llm.answers import Answer, Failure


def comparison(is_first):
    return Comparison("q1", "Do it.", "theirs", "mine", is_first)


def weighted(**logprobs):
    return Answer("A", "length", 1, 1, {token.replace("_", " "): value for token, value in logprobs.items()})


def test_the_order_is_drawn_from_the_id_and_both_come_up():
    orders = [model_is_first(f"q{number}", 1) for number in range(400)]
    assert 150 < sum(orders) < 250
    assert orders == [model_is_first(f"q{number}", 1) for number in range(400)]
    assert orders != [model_is_first(f"q{number}", 2) for number in range(400)]


@pytest.mark.parametrize("is_first", [True, False])
def test_the_judge_sees_the_drawn_order(is_first):
    prompts = own_prompts(COMPARE)
    request = comparison_request(prompts, comparison(is_first), weighted=True, attempt=2)
    text = request.messages[0]["content"]
    assert (text.index("mine") < text.index("theirs")) == is_first
    assert (request.max_tokens, request.top_logprobs, request.attempt) == (1, 5, 2)
    assert comparison_request(prompts, comparison(is_first), weighted=False, attempt=0).top_logprobs is None


def test_the_order_is_undone():
    for text, first in (("A", 1.0), ("B", 0.0), ("m", 1.0), ("M", 0.0)):
        answer = Answer(text, "stop", 1, 1)
        assert share_of(answer, comparison(True), weighted=False) == first
        assert share_of(answer, comparison(False), weighted=False) == 1 - first


def test_weights_are_the_share_of_a_letter_in_the_probability_of_both():
    answer = weighted(A=math.log(0.3), _A=math.log(0.1), B=math.log(0.2), C=math.log(0.3))
    assert share_of(answer, comparison(True), weighted=True) == pytest.approx(0.4 / 0.6)
    assert share_of(answer, comparison(False), weighted=True) == pytest.approx(0.2 / 0.6)
    assert share_of(weighted(M=-0.1), comparison(True), weighted=True) == 0.0  # the other one has no probability at all
    assert share_of(weighted(Both=-0.1), comparison(True), weighted=True).reason == "no_letter"
    assert share_of(Failure("deadline", ""), comparison(True), weighted=True).reason == "failed_deadline"


def test_win_rates_by_hand():
    found = win_rate([1.0, 0.9, 0.5, 0.2])
    assert found["results"]["win rate"].value == pytest.approx(65.0)
    assert found["results"]["discrete win rate"].value == pytest.approx(62.5)
    assert (found["wins"], found["losses"], found["draws"]) == (2, 1, 1)
    # Deviations from 0.65: 0.35, 0.25, -0.15, -0.45; their squares sum to 0.41.
    assert found["standard_error"] == pytest.approx(100 * math.sqrt(0.41 / 3) / 2)
    assert win_rate([1.0])["standard_error"] is None


def test_preferences_as_published_files_have_them():
    assert shares_of_preferences([1, 2, 1.25, 0, 1.5, None, float("nan")]) == [0.0, 1.0, 0.25, 0.5, 0.5]


def test_rows_of_outputs():
    assert outputs_row("Do", "done", "sft", "koala") == {
        "dataset": "koala", "instruction": "Do", "output": "done", "generator": "sft"
    }  # fmt: skip
    assert "dataset" not in outputs_row("Do", "done", "sft", None)


@pytest.mark.parametrize(
    ("file", "rate", "error"),
    [
        ("deita-7b-v1.0.alpaca_eval_1", 90.06211180124224, 1.0550914216270568),
        ("fusechat-llama-3.2-1b.alpaca_eval_2", 29.92193226588823, 1.3934584328741795),
    ],
)
def test_published_annotations_give_the_leaderboards_win_rate(shared, file, rate, error):
    path = shared / "data" / "alpaca_eval" / f"{file}.annotations.json.gz"
    annotations = json.loads(gzip.decompress(path.read_bytes()))
    found = win_rate(shares_of_preferences([row["preference"] for row in annotations]))
    assert found["results"]["win rate"].value == pytest.approx(rate, abs=1e-9)
    assert found["standard_error"] == pytest.approx(error, abs=1e-9)


def test_published_outputs_have_the_fields_that_are_written_here(shared):
    path = shared / "data" / "alpaca_eval" / "deita-7b-v1.0.outputs.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))
    assert all(set(row) == set(outputs_row("", "", "", "")) for row in rows)
