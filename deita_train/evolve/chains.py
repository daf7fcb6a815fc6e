"""Chains of versions: each step evolves the last good version of a seed by one operation (paper 2.3 and 2.4)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from deita_train.evolve.elimination import OK, reason_of_call, reason_of_text
from deita_train.evolve.operations import Dimension
from deita_train.evolve.prompts import Prompts
from deita_train.evolve.reading import without_thoughts
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest

MAX_TOKENS = 2048
_MARKS = re.compile(r"<(/?)evolved>", re.IGNORECASE)


@dataclass(frozen=True)
class Seed:
    """What a chain begins with.

    Attributes:
        id: of the row.
        instruction: of the user.
        response: the answer to it; None where only instructions are evolved.
    """

    id: str
    instruction: str
    response: str | None


@dataclass(frozen=True)
class Version:
    """One step of a chain.

    Attributes:
        seed_id: of the chain.
        step: 0 is the seed itself.
        operation: by which it was evolved; None for the seed.
        instruction: for complexity, the evolved one.
        response: for quality, the evolved one; None for complexity.
        status: "ok", or the reason of its elimination.
        raw: the whole answer of the model; None for the seed, and where there was no answer.
    """

    seed_id: str
    step: int
    operation: str | None
    instruction: str
    response: str | None
    status: str
    raw: str | None

    @property
    def is_good(self) -> bool:
        """Whether it was not eliminated."""
        return self.status == OK

    @property
    def text(self) -> str:
        """The text that is evolved: the response if there is one, else the instruction."""
        return self.instruction if self.response is None else self.response


def first_version(seed: Seed, dimension: Dimension) -> Version:
    """The seed as the first version of its chain; for complexity without its response, which evolves no further."""
    response = seed.response if dimension == "quality" else None
    assert dimension == "complexity" or response is not None, f"the seed {seed.id} has no response to evolve"
    return Version(seed.id, 0, None, seed.instruction, response, OK, None)


def last_good(chain: Sequence[Version]) -> Version:
    """The version from which a chain goes on: the last one that was not eliminated, in the end the seed."""
    return next(version for version in reversed(chain) if version.is_good)


def evolution_request(
    prompts: Prompts,
    version: Version,
    operation: str,
    *,
    temperature: float = 0.0,
    max_tokens: int = MAX_TOKENS,
    attempt: int = 0,
) -> ChatRequest:
    """Ask a model to evolve a version.

    Args:
        prompts: of the dimension.
        version: to evolve.
        operation: how.
        temperature: of sampling.
        max_tokens: of the answer.
        attempt: how many steps have failed since `version`; a model that samples may then answer otherwise.
    """
    response = version.response if prompts.dimension == "quality" else None
    content = prompts.render(operation, instruction=version.instruction, response=response)
    messages = ({"role": "user", "content": content},)
    return ChatRequest(messages, temperature=temperature, max_tokens=max_tokens, attempt=attempt)


def judge_evolution(
    parent: Version,
    answer: Answer | Failure,
    operation: str,
    step: int,
    max_chars: int,
    *,
    prompts: Prompts,
    earlier: Sequence[Version] = (),
) -> Version:
    """The version that a model's answer makes, or the reason why it makes none.

    Args:
        parent: what was evolved.
        answer: to `evolution_request`.
        operation: that was asked for.
        step: of the chain, from 1.
        max_chars: of an evolved text.
        prompts: with which it was asked.
        earlier: the chain up to here; the model may go back to one of its good versions.
    """
    asked = prompts.dimension
    raw = answer.text if isinstance(answer, Answer) else None
    text = "" if raw is None else evolved_text(raw)
    given: dict[str, Any] = {"response": text} if asked == "quality" else {"instruction": text}
    version = replace(parent, step=step, operation=operation, raw=raw, **given)
    status = reason_of_call(answer) or reason_of_text(
        text,
        said=without_thoughts(raw or ""),
        before=parent.text,
        earlier=[other.text for other in earlier if other.is_good],
        max_chars=max_chars,
        prompt_words=prompts.own_words(operation),
        given=f"{parent.instruction}\n{parent.response or ''}",
    )
    return replace(version, status=status)


def evolved_text(raw: str) -> str:
    """The new text in an answer: what stands last between the marks that the prompts ask for, or behind an opening mark
    that nothing closes; the whole answer if there are no marks."""
    said = without_thoughts(raw)
    start, end = 0, len(said)
    for mark in _MARKS.finditer(said):
        if mark[1]:
            end = mark.start()
        else:
            start, end = mark.end(), len(said)
    return said[start:end].strip()


def next_request(
    prompts: Prompts, chain: Sequence[Version], operation: str, *, temperature: float, max_tokens: int
) -> ChatRequest:
    """The request of a chain's next step, from its last good version."""
    parent = last_good(chain)
    failed = len(chain) - 1 - parent.step
    return evolution_request(prompts, parent, operation, temperature=temperature, max_tokens=max_tokens, attempt=failed)


def next_version(
    prompts: Prompts, chain: Sequence[Version], operation: str, answer: Answer | Failure, max_chars: int
) -> Version:
    """What the answer to `next_request` adds to a chain."""
    return judge_evolution(last_good(chain), answer, operation, len(chain), max_chars, prompts=prompts, earlier=chain)
