"""What a stage will ask of its chat model in all: its calls, their tokens and their cost, as a line and in the log."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from deita_train.evolve.ranking import calls_per_seed
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Price
from deita_train.llm.requests import ChatRequest
from deita_train.llm.spending import Usage, money_text, most_usage
from deita_train.stages.asking.asker import log_line, stage_asker
from deita_train.stages.context import StageContext

_OF_SEEDS = ("evolve", "rank")


@dataclass(frozen=True)
class FirstRequests:
    """The first request about each seed or turn, in numbers.

    Attributes:
        number: of the requests.
        usage: tokens of their prompts, and the most that their answers may have.
    """

    number: int
    usage: Usage

    @classmethod
    def count(cls, requests: Iterable[ChatRequest]) -> Self:
        """Count requests, which are not held."""
        number, usage = 0, Usage()
        for request in requests:
            number += 1
            usage.add(most_usage(request))
        return cls(number, usage)


def announced_asker(context: StageContext, first: Iterable[ChatRequest]) -> Asker:
    """The stage's chat model, once the stage's log says what it will be asked.

    Args:
        context: of the stage.
        first: the first request about each seed or turn.
    """
    counted = FirstRequests.count(first)
    log_line(forecast(context.kind, context.label, context.identity, context.runtime["endpoint"], counted))
    expected, _ = _calls(context.kind, context.identity)
    return stage_asker(context, counted.number * expected)


def forecast(
    kind: str, label: str, identity: Mapping[str, Any], endpoint: Mapping[str, Any], first: FirstRequests
) -> str:
    """A line on what a stage will ask.

    Every answer is taken to be as long as it may be, and every prompt as long as the first one about its seed or turn.

    Args:
        kind: of the stage.
        label: of the stage.
        identity: of the stage.
        endpoint: of the chat model, as the recipe has it.
        first: the first requests.
    """
    expected, at_most = _calls(kind, identity)
    usage = Usage(first.usage.prompt_tokens * at_most, first.usage.completion_tokens * at_most)
    noun = "seeds" if kind in _OF_SEEDS else "turns"
    more = f", {first.number * at_most:,} at most" if at_most > expected else ""
    growing = " while texts are as long as their seeds" if kind in _OF_SEEDS else ""
    return (
        f"{label}: {first.number * expected:,} calls to llm.{endpoint['name']} for {first.number:,} {noun}{more}; at "
        f"most {usage.completion_tokens:,} tokens of answers and about {usage.prompt_tokens:,} of prompts{growing}"
        f"{_cost(endpoint.get('price'), usage)}"
    )


def _calls(kind: str, identity: Mapping[str, Any]) -> tuple[int, int]:
    """How many calls a row costs, as expected and at most."""
    if kind == "evolve":
        return calls_per_seed(identity["evolutions"], 0, 0)
    return calls_per_seed(0, identity.get("orders", 1), identity["ask_again"])


def _cost(price: Mapping[str, float] | None, usage: Usage) -> str:
    cost = usage.cost(None if price is None else Price(**price))
    return "" if cost is None else f", which cost about {money_text(cost)} at most"
