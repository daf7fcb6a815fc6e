"""What the tests of this folder do in processes of their own; imports little, because every process imports it."""

import os
from pathlib import Path

from deita_train.llm.answers import Answer, AnswerStore
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.requests import ChatRequest

IN_FLIGHT = 8


def request(text) -> ChatRequest:
    return ChatRequest(({"role": "user", "content": str(text)},))


def add(store: AnswerStore, text) -> None:
    store.add(request(text).key("m"), request(text), Answer(f"to {text}", "stop", 3, 4))


def add_forty(folder: Path, name: str) -> None:
    """Forty answers of one's own, and forty that others add at the same time."""
    store = AnswerStore(folder)
    for number in range(40):
        add(store, f"{name} {number}")
        add(store, f"shared {number}")
        store.refresh()
    assert len(store) >= 80


def add_in_a_fork(folder: Path) -> None:
    """An answer before the fork, one in the forked process, and one after it."""
    store = AnswerStore(folder)
    add(store, "before")
    child = os.fork()
    if child == 0:
        add(store, "in the fork")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    add(store, "after")
    store.refresh()
    assert len(store) == 3


def ask(url: str, folder: Path, number: int) -> list[str]:
    """The answers to so many requests."""
    endpoint = Endpoint("judge", "m", base_url=url, max_in_flight=IN_FLIGHT)
    asker = Asker(endpoint, AnswerStore(folder), lambda *_: None, lambda line: None)
    return [answer.text for answer in asker.ask([request(place) for place in range(number)])]
