"""SIGKILL of a stage that judges, then the same again: nothing is asked twice, and the table has the same bytes."""

import os
import random
import re
import signal
import time

import pytest
from judge_stages import endpoint_of, identity_of, judge_context, judged, question, write_answers, write_questions
from llm.fake_server import FakeServer

from deita_train.evaluation.judge_prompts import PAIR
from deita_train.llm.answers import AnswerStore
from deita_train.stages.checks import content_digest

QUESTIONS = [question(f"q{number}", f"Ask {number}.", "And?", category="writing") for number in range(15)]
CALLS = 60  # two turns, two orders
IN_FLIGHT = 4


def verdict(body):
    """By the texts alone; some verdicts cannot be read, and are at the second attempt as little."""
    number = int(re.findall(r"q(\d+) mine", body["messages"][-1]["content"])[-1])
    return "Hm." if number % 7 == 6 else "[[A]]" if number % 3 else "[[C]]"


def prepare(folder):
    write_questions(folder / "questions", QUESTIONS)
    for name in ("mine", "theirs"):
        write_answers(folder / name, QUESTIONS, lambda question, turn, name=name: f"{question} {name} at {turn}")
    return folder


def context_of(folder, url):
    parents = {"questions": folder / "questions", "answers": folder / "mine", "baseline": folder / "theirs"}
    identity = identity_of(PAIR, baseline="base", ask_again=0)
    return judge_context(folder, identity, endpoint_of(url, max_in_flight=IN_FLIGHT), parents)


def be_judged(folder, url):
    """Target of a child."""
    judged(context_of(folder, url))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digest of the work folder without a kill."""
    folder = prepare(tmp_path_factory.mktemp("judged"))
    with FakeServer(verdict) as server:
        judged(context_of(folder, server.url))
        assert len(server.requests) == CALLS
    return content_digest(folder / "work")


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "moment", [23, *(pytest.param(moment, marks=pytest.mark.faults) for moment in (0, 1, 9, 30, 44, 59))]
)
def test_after_a_kill_between_answers_every_question_was_judged_exactly_once(processes, tmp_path, undisturbed, moment):
    """The server looks at no further request, so nothing is under way once the answers have reached the process."""
    prepare(tmp_path)
    with FakeServer(verdict, keep=lambda body: body["messages"][-1]["content"]) as server:
        server.take_at_most(moment)
        child = processes.Process(target=be_judged, args=(tmp_path, server.url))
        child.start()
        server.wait_for(lambda server: server.sent == moment)
        deadline = time.monotonic() + 30
        while len(AnswerStore(tmp_path / "answers")) < moment:
            assert child.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        kill(child)
        server.drop_connections()
        server.take_at_most(None)
        _, metrics = judged(context_of(tmp_path, server.url))
        assert len(server.requests) == len(set(server.requests)) == CALLS
    assert metrics["spending"]["answered_from_store"] == moment
    assert content_digest(tmp_path / "work") == undisturbed


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_any_moment_costs_at_most_what_was_under_way(processes, tmp_path, undisturbed, seed):
    moment = random.Random(seed)
    prepare(tmp_path)
    with FakeServer(verdict, delay=0.01) as server:
        child = processes.Process(target=be_judged, args=(tmp_path, server.url))
        child.start()
        wanted = moment.randrange(1, CALLS - IN_FLIGHT)
        server.wait_for(lambda server: len(server.requests) >= wanted)
        time.sleep(moment.random() / 50)
        kill(child)
        judged(context_of(tmp_path, server.url))
        assert CALLS <= len(server.requests) <= CALLS + IN_FLIGHT
    assert content_digest(tmp_path / "work") == undisturbed
