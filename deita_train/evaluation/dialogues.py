"""Questions asked turn by turn, each after the model's own answer to the one before."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EARLIER_TURN = "earlier_turn_unanswered"


@dataclass(frozen=True)
class Asked:
    """One turn of one question, as it is put to a model.

    Attributes:
        id: of the question.
        turn: from 0.
        messages: all that was said, the user's text last: objects with `role` and `content`.
        category: of the question.
    """

    id: str
    turn: int
    messages: tuple[dict[str, str], ...]
    category: str | None = None


@dataclass(frozen=True)
class Reply:
    """What came of it.

    Attributes:
        text: the answer without white space around it, which may be empty; None if there is none.
        tokens: of the answer.
        ended: whether the model ended it; else it was cut at the limit.
        reason: why there is no answer.
    """

    text: str | None
    tokens: int = 0
    ended: bool = False
    reason: str | None = None

    def __post_init__(self) -> None:
        assert (self.text is None) == (self.reason is not None), self.reason


Answer = Callable[[int, Sequence[Asked]], Sequence[Reply]]
"""Answers one turn of all questions that have it, in their order."""


def hold_dialogues(questions: Sequence[Mapping[str, Any]], answer: Answer) -> list[list[Reply]]:
    """The replies to every turn of every question.

    The first turns of all questions are asked together, then the second ones. A turn after one without an answer is not
    asked.

    Args:
        questions: with `id`, `turns`, `system` and `category`.
        answer: of the model.
    """
    replies: list[list[Reply]] = [[] for _ in questions]
    for turn in range(max((len(question["turns"]) for question in questions), default=0)):
        having = [place for place, question in enumerate(questions) if turn < len(question["turns"])]
        asked = [place for place in having if all(reply.text is not None for reply in replies[place])]
        found = answer(turn, [_asked(questions[place], turn, replies[place]) for place in asked])
        given = dict(zip(asked, found, strict=True))
        for place in having:
            replies[place].append(given.get(place, Reply(None, reason=EARLIER_TURN)))
    return replies


def _asked(question: Mapping[str, Any], turn: int, replies: Sequence[Reply]) -> Asked:
    texts = [reply.text for reply in replies if reply.text is not None]
    assert len(texts) == turn, "a turn is asked after an answer to each before it"
    return Asked(question["id"], turn, dialogue(question, texts), question["category"])


def dialogue(question: Mapping[str, Any], answers: Sequence[str]) -> tuple[dict[str, str], ...]:
    """The messages up to the turn that follows these answers."""
    messages = [] if question["system"] is None else [{"role": "system", "content": question["system"]}]
    for text, answer in zip(question["turns"], answers, strict=False):
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return (*messages, {"role": "user", "content": question["turns"][len(answers)]})


def drawing_seed(seed: int | None, question_id: str, turn: int) -> int:
    """What an answer is drawn by, whatever else is asked beside it: below 2**56."""
    digest = hashlib.sha256(json.dumps([seed, question_id, turn]).encode()).digest()
    return int.from_bytes(digest[:7], "big")
