"""What a stage's answers cost, and the ceiling that no call may exceed."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deita_train.errors import UserError
from deita_train.llm.answers import Answer
from deita_train.llm.endpoint import Endpoint, Price
from deita_train.llm.replies import Trouble
from deita_train.llm.requests import ChatRequest, estimated_tokens
from deita_train.number_text import count, plural


@dataclass
class Usage:
    """Tokens of prompts and of answers."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, other: "Usage") -> None:
        """Count another's tokens here as well."""
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens

    def subtract(self, other: "Usage") -> None:
        """Count another's tokens here no longer."""
        self.prompt_tokens -= other.prompt_tokens
        self.completion_tokens -= other.completion_tokens

    def cost(self, price: Price | None) -> float | None:
        """Their cost; None without a price."""
        return None if price is None else price.of(self.prompt_tokens, self.completion_tokens)


@dataclass
class Spending:
    """What was asked and what it cost.

    Attributes:
        price: of a million tokens; None if not stated.
        calls: made now, repetitions included.
        answered: requests that these calls answered.
        from_store: requests whose answer was kept from before.
        paid: tokens of all calls made now, with those of unusable answers.
        earlier: tokens of the answers from the store, which were paid when they were made.
        estimated: answers of now or of before, unusable ones too, whose tokens are an estimate because the server told
            none.
        failures: requests without an answer, by reason.
        repeated: calls that had to be repeated, by reason.
    """

    price: Price | None = None
    calls: int = 0
    answered: int = 0
    from_store: int = 0
    paid: Usage = field(default_factory=Usage)
    earlier: Usage = field(default_factory=Usage)
    estimated: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)

    @property
    def cost(self) -> float | None:
        """Of the calls made now; None without a price."""
        return self.paid.cost(self.price)

    @property
    def total(self) -> Usage:
        """The tokens of all answers, whenever they were paid."""
        return Usage(
            self.paid.prompt_tokens + self.earlier.prompt_tokens,
            self.paid.completion_tokens + self.earlier.completion_tokens,
        )

    def add_answer(self, request: ChatRequest, answer: Answer, *, from_store: bool) -> Usage:
        """Count an answer of now or of the store; its tokens, estimated where the server told none."""
        usage = usage_of(request, answer.text, answer.prompt_tokens, answer.completion_tokens)
        self.estimated += answer.prompt_tokens is None or answer.completion_tokens is None
        if from_store:
            self.from_store += 1
            self.earlier.add(usage)
        else:
            self.answered += 1
            self.paid.add(usage)
        return usage

    def add_outcome(self, request: ChatRequest, outcome: Answer | Trouble) -> Usage | None:
        """Count what a call of now took; None if the server did not do its work."""
        if isinstance(outcome, Answer):
            return self.add_answer(request, outcome, from_store=False)
        if outcome.told_tokens is None:
            return None
        usage = usage_of(request, "", *outcome.told_tokens)
        self.estimated += None in outcome.told_tokens
        self.paid.add(usage)
        return usage

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for metrics and JSON."""
        return {
            "calls": self.calls,
            "answered": self.answered,
            "answered_from_store": self.from_store,
            "prompt_tokens": self.paid.prompt_tokens,
            "completion_tokens": self.paid.completion_tokens,
            "cost": self.cost,
            "earlier_prompt_tokens": self.earlier.prompt_tokens,
            "earlier_completion_tokens": self.earlier.completion_tokens,
            "earlier_cost": self.earlier.cost(self.price),
            "answers_with_estimated_tokens": self.estimated,
            "failures": dict(sorted(self.failures.items())),
            "repeated_calls": dict(sorted(self.repeated.items())),
        }

    def __str__(self) -> str:
        """In a few words, for a line of progress."""
        about = "about " if self.estimated else ""
        money = "" if self.cost is None else f", {about}{money_text(self.cost)}"
        return f"{plural(self.calls, 'call')}, {about}{count(self.paid.tokens)} tokens{money}"


def usage_of(request: ChatRequest, text: str, prompt_tokens: int | None, completion_tokens: int | None) -> Usage:
    """The tokens of a request and its answer's text, estimated where they are not known."""
    return Usage(
        request.prompt_tokens if prompt_tokens is None else prompt_tokens,
        estimated_tokens(text) if completion_tokens is None else completion_tokens,
    )


def most_usage(request: ChatRequest) -> Usage:
    """The most that a request is expected to take: its prompt, and an answer of full length."""
    return Usage(request.prompt_tokens, request.max_tokens)


def money_text(cost: float) -> str:
    """An amount with two decimals, or four below one."""
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:,.4f}"


class CeilingReached(UserError):
    """The next call could exceed what the recipe allows."""


class Ceiling:
    """Holds calls back while those under way could together reach the ceiling, and refuses one that surely could."""

    def __init__(self, endpoint: Endpoint, spending: Spending) -> None:
        self._endpoint = endpoint
        self._spending = spending
        self._under_way = Usage()
        self._calls = 0
        self._changed = asyncio.Event()

    async def reserve(self, most: Usage) -> None:
        """Wait until a call of at most these tokens fits.

        Raises:
            CeilingReached: it does not fit, and no call is under way that could turn out cheaper.
        """
        while self._calls and self._exceeded_by(most) is not None:
            self._changed.clear()
            await self._changed.wait()
        field = self._exceeded_by(most)
        if field is not None:
            raise CeilingReached(self._message(field, most))
        self._under_way.add(most)
        self._calls += 1

    def release(self, most: Usage) -> None:
        """A call is over; what it took is in the spending."""
        self._under_way.subtract(most)
        self._calls -= 1
        self._changed.set()

    def _exceeded_by(self, most: Usage) -> str | None:
        """The field whose value the answers so far, the calls under way and this one could exceed."""
        together = Usage()
        for usage in (self._spending.total, self._under_way, most):
            together.add(usage)
        if self._endpoint.max_tokens_total is not None and together.tokens > self._endpoint.max_tokens_total:
            return "max_tokens_total"
        cost = together.cost(self._endpoint.price)
        if self._endpoint.max_cost is not None and cost is not None and cost > self._endpoint.max_cost:
            return "max_cost"
        return None

    def _message(self, field: str, most: Usage) -> str:
        total, earlier = self._spending.total, self._spending.earlier
        about = "about " if self._spending.estimated else ""
        if field == "max_cost":
            stated, spent, before, next_call = (
                money_text(value)
                for value in (
                    self._endpoint.max_cost or 0.0,
                    total.cost(self._endpoint.price) or 0.0,
                    earlier.cost(self._endpoint.price) or 0.0,
                    most.cost(self._endpoint.price) or 0.0,
                )
            )
        else:
            stated, spent, before, next_call = (
                f"{count(value)} tokens"
                for value in (self._endpoint.max_tokens_total, total.tokens, earlier.tokens, most.tokens)
            )
        return (
            f"{self._endpoint.label}: stopped at {field} ({stated}). The answers so far took {about}{spent}, {before} "
            f"of it before this start, and the next call could take {next_call}. Every answer is kept. Raise "
            f"{self._endpoint.label}.{field} and run again; what is answered is not asked again."
        )
