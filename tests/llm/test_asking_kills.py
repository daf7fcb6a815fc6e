"""SIGKILL of a process that asks; then the same again.

What is promised: an answer that reached the process is in the files before anything else happens, so that after a kill
only requests are asked again whose answer had not reached it, and those are at most `max_in_flight`.
"""

import os
import random
import signal
import time
from collections import Counter

import pytest

from deita_train.llm.answers import AnswerStore
from llm.asking_children import IN_FLIGHT, ask, request
from llm.fake_server import FakeServer

NUMBER = 60
ANSWERS = [f"answer {place}" for place in range(NUMBER)]


def number_of(body):
    return int(body["messages"][-1]["content"])


def asked(server):
    return Counter(map(number_of, server.requests))


def kept(folder):
    store = AnswerStore(folder)
    return {place for place in range(NUMBER) if store.get(request(place).key("m")) is not None}


@pytest.fixture
def server():
    with FakeServer(lambda body: f"answer {number_of(body)}", delay=0.01) as server:
        yield server


@pytest.fixture
def start(processes, server, tmp_path):
    """Start a process that asks; it is killed at the end."""
    started = []

    def start():
        child = processes.Process(target=ask, args=(server.url, tmp_path, NUMBER))
        child.start()
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "moment", [20, *(pytest.param(m, marks=pytest.mark.faults) for m in (0, 1, 7, 31, 45, 59, 60))]
)
def test_after_a_kill_between_answers_every_request_was_asked_exactly_once(server, start, tmp_path, moment):
    """The server looks at no further request, so nothing is under way once the answers have reached the process."""
    server.take_at_most(moment)
    child = start()
    server.wait_for(lambda server: server.sent == moment)
    deadline = time.monotonic() + 30
    while len(kept(tmp_path)) < moment:
        assert child.is_alive() or moment == NUMBER
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if moment < NUMBER:
        kill(child)
        server.drop_connections()
    server.take_at_most(None)
    assert ask(server.url, tmp_path, NUMBER) == ANSWERS
    assert asked(server) == dict.fromkeys(range(NUMBER), 1)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_a_kill_at_any_moment_costs_at_most_what_was_under_way(server, start, tmp_path, seed):
    moment = random.Random(seed)
    child = start()
    server.wait_for(lambda server: len(server.requests) >= moment.randrange(1, NUMBER - IN_FLIGHT))
    time.sleep(moment.random() / 50)
    kill(child)
    time.sleep(0.2)  # what the server had read by then
    before, known = asked(server), kept(tmp_path)
    assert set(before.values()) == {1} and known <= set(before)
    lost = set(before) - known
    assert len(lost) <= IN_FLIGHT
    assert ask(server.url, tmp_path, NUMBER) == ANSWERS
    assert asked(server) == {place: 2 if place in lost else 1 for place in range(NUMBER)}


@pytest.mark.faults
def test_two_processes_may_both_ask_and_corrupt_nothing(server, start, tmp_path):
    first, second = start(), start()
    first.join(60), second.join(60)
    assert (first.exitcode, second.exitcode) == (0, 0)
    times = asked(server)
    assert set(times) == set(range(NUMBER)) and set(times.values()) <= {1, 2}
    store = AnswerStore(tmp_path)
    assert len(store) == NUMBER and store.damaged_lines == 0
    assert ask(server.url, tmp_path, NUMBER) == ANSWERS
    assert asked(server) == times
