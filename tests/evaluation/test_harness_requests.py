"""Batches of requests: whole questions, the same whatever the ranks, and every request once."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lm_eval", reason="the extra eval is not installed")

from deita_train.errors import UserError
from deita_train.evaluation.harness_requests import Request, cut_requests, plan_requests


def request(task, document, type_="loglikelihood", values=("context", " choice")):
    return Request(task, document, type_, json.dumps(values))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(1, 50))), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_a_batch_has_whole_questions_of_one_task_longest_first(questions, batch_size):
    requests, lengths = [], []
    for document, (task, choices, length) in enumerate(questions):
        requests += [request(task, document)] * choices
        lengths += [length + choice for choice in range(choices)]
    batches = plan_requests(requests, lengths, batch_size)
    assert sorted(place for batch in batches for place in batch) == list(range(len(requests)))
    where = {}
    for number, batch in enumerate(batches):
        assert len({requests[place].task for place in batch}) == 1
        assert len({requests[place].document for place in batch}) <= batch_size
        assert [lengths[place] for place in batch] == sorted((lengths[place] for place in batch), reverse=True)
        for place in batch:
            assert where.setdefault((requests[place].task, requests[place].document), number) == number


class Model:
    max_length, max_gen_toks = 10, 4


def test_requests_beyond_the_context_are_counted():
    asked = [request("a", 0), request("a", 1), request("b", 0, "loglikelihood_rolling", ("text",))]
    words = request("c", 0, "generate_until", ("context", {"until": []}))
    assert cut_requests([*asked, words, words], [11, 12, 99, 6, 7], Model, "s") == 2
    long = request("c", 0, "generate_until", ("context", {"max_gen_toks": 10}))
    with pytest.raises(UserError, match=r"s\.tasks: c has answers of up to 10 tokens, and the model's context is 10"):
        cut_requests([long], [1], Model, "s")
