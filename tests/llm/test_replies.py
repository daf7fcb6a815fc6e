import json
import time
from email.utils import formatdate

import pytest

from deita_train.llm.answers import Answer, Failure
from deita_train.llm.replies import Trouble, pause_before, read_reply, shown, wait_asked_for
from llm.fake_server import completion

NOW = 1_800_000_000


def read(body):
    return read_reply((body if isinstance(body, str) else json.dumps(body)).encode())


def test_a_good_reply():
    assert read(completion("Yes.", usage=(12, 3))) == Answer("Yes.", "stop", 12, 3)
    assert read(completion(" \n Yes. ", finish_reason="length")).text == " \n Yes. "
    assert read(completion("Yes.", finish_reason="length")).finish_reason == "length"


@pytest.mark.parametrize(
    "usage", [None, {}, [], {"prompt_tokens": None}, {"prompt_tokens": "5"}, {"prompt_tokens": -1}]
)
def test_without_usage_the_tokens_are_not_known(usage):
    body = completion("Yes.", usage=None) | {"usage": usage}
    assert read(body) == Answer("Yes.", "stop", None, None)


def test_a_reply_may_tell_one_of_the_two_numbers():
    body = completion("Yes.", usage=None) | {"usage": {"prompt_tokens": 3, "completion_tokens": True}}
    assert read(body) == Answer("Yes.", "stop", 3, None)


def test_a_finish_reason_of_another_kind_is_not_known():
    assert read(completion("Yes.", finish_reason=None)).finish_reason is None
    assert read(completion("Yes.", finish_reason=7)).finish_reason is None


def test_content_may_come_in_parts():
    parts = [{"type": "text", "text": "Ye"}, {"type": "image"}, "x", {"type": "text", "text": "s."}]
    assert read(completion(parts)).text == "Yes."


def test_a_lone_surrogate_is_replaced():
    assert read('{"choices": [{"message": {"content": "a\\ud800b\\ud83d\\ude00"}}]}').text == "a\ufffdb\U0001f600"


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        ("<html>Welcome</html>", "malformed", "the body is no JSON: <html>Welcome</html>"),
        ("", "malformed", "the body is empty:"),
        ('{"choices": [{"mess', "malformed", "the body is no JSON: "),
        ("[" * 100_000, "malformed", "the body is no JSON: "),
        ("[1]", "malformed", "the body is no JSON object: [1]"),
        ("null", "malformed", "the body is no JSON object: null"),
        ({"choices": [None]}, "malformed", "the first choice has no message"),
        ({"choices": [{"message": None}]}, "malformed", "the first choice has no message"),
        ({"choices": None}, "no_choices", "the reply has no choices"),
        ({"choices": []}, "no_choices", "the reply has no choices"),
        ({"choices": {"0": 1}}, "no_choices", "the reply has no choices"),
        ({}, "no_choices", "the reply has no choices"),
        ({"error": {"message": "over\nloaded"}}, "server_error", "status 200 with an error: over loaded"),
        ({"error": "overloaded", "choices": None}, "server_error", "status 200 with an error: overloaded"),
        ({"error": {"code": 5}}, "server_error", "status 200 with an error: {'code': 5}"),
    ],
)
def test_what_is_no_answer_is_asked_again_and_costs_nothing(body, reason, detail):
    trouble = read(body)
    assert trouble.failure.reason == reason and trouble.failure.detail.startswith(detail)
    assert trouble.again and trouble.told_tokens is None and trouble.wait_seconds is None


@pytest.mark.parametrize("content", ["", None, " \n", [], {"text": "x"}, 5])
@pytest.mark.parametrize(
    ("finish_reason", "again", "words"),
    [
        ("stop", True, "the answer is empty (finish_reason stop)"),
        (None, True, "the answer is empty"),
        ("length", False, "the answer is empty at max_tokens: a model that reasons first needs more of them"),
        ("content_filter", False, "the answer is empty (finish_reason content_filter)"),
    ],
)
def test_an_empty_answer_costs_what_the_server_says(content, finish_reason, again, words):
    body = completion(content, finish_reason, usage=(9, 5))
    assert read(body) == Trouble(Failure("no_content", words), again=again, told_tokens=(9, 5))


def test_a_refusal_of_the_server_is_not_asked_again():
    body = completion(None, refusal="I cannot help with that.")
    failure = Failure("refused", "the server says: I cannot help with that.")
    assert read(body) == Trouble(failure, again=False, told_tokens=(11, 7))


def test_an_error_beside_a_choice_is_an_answer():
    assert read(completion("Yes.") | {"error": None}).text == "Yes."


def test_a_servers_words_are_shortened_to_one_line():
    assert shown("a\n  b\t c") == "a b c"
    assert shown("x" * 500) == "x" * 200 + "..."


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "600"}, 600),
        ({"retry-after": "86400"}, 86400),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": formatdate(NOW + 600, usegmt=True)}, 600),
        ({"retry-after": formatdate(NOW - 600, usegmt=True)}, 0),
        # The server's clock is two hours ahead.
        ({"retry-after": formatdate(NOW + 7800, usegmt=True), "date": formatdate(NOW + 7200, usegmt=True)}, 600),
    ],
)
def test_the_wait_that_a_server_asks_for(headers, seconds):
    assert wait_asked_for(headers, now=NOW) == seconds


def test_without_the_servers_date_a_date_is_compared_with_the_clock_here():
    assert 595 < wait_asked_for({"retry-after": formatdate(time.time() + 600, usegmt=True)}) <= 600


def test_pauses_grow_to_a_minute_and_are_drawn_from_the_key():
    pauses = [[pause_before(attempt, f"key {number}") for attempt in range(2, 9)] for number in range(300)]
    for attempt, middle in enumerate([0.5, 1.5, 4.5, 13.5, 40.5, 60, 60]):
        of_attempt = [row[attempt] for row in pauses]
        assert 0.75 * middle <= min(of_attempt) < 0.8 * middle
        assert 1.2 * middle < max(of_attempt) <= 1.25 * middle
    assert pauses[0] == [pause_before(attempt, "key 0") for attempt in range(2, 9)]
    assert len({row[0] for row in pauses}) == 300


def logprobs(*alternatives):
    content = [{"token": "A", "logprob": -0.1, "top_logprobs": list(alternatives)}]
    body = completion("A")
    body["choices"][0]["logprobs"] = {"content": content}
    return body


def test_the_alternatives_to_the_first_token_are_kept_where_they_are_told():
    body = logprobs({"token": "A", "logprob": -0.1, "bytes": [65]}, {"token": " B", "logprob": -2})
    assert read(body).first_token == {"A": -0.1, " B": -2.0}


@pytest.mark.parametrize("told", [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "A"}]}, 7])
def test_other_forms_tell_no_alternatives(told):
    body = completion("A")
    body["choices"][0]["logprobs"] = told
    assert read(body) == Answer("A", "stop", 11, 7)


def test_alternatives_without_a_finite_number_are_left_out():
    assert read(logprobs({"token": "A", "logprob": -0.1}, {"token": "B", "logprob": float("-inf")})).first_token == {
        "A": -0.1
    }
    assert read(logprobs({"token": "B", "logprob": float("nan")})).first_token is None
    assert read(logprobs({"token": "B"})).first_token is None
