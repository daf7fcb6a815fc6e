"""What a stage will ask of its chat model in all: its calls, their tokens and their cost, as a line and in the log."""

from collections.abc import Mapping, Sequence
from typing import Any

from deita_train.evolve.ranking import calls_per_seed
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Price
from deita_train.llm.requests import ChatRequest
from deita_train.llm.spending import Usage, money_text
from deita_train.stages.asking.asker import log_line, stage_asker
from deita_train.stages.context import StageContext

_OF_SEEDS = ("evolve", "rank")


def announced_asker(context: StageContext, first: Sequence[ChatRequest]) -> Asker:
    """The stage's chat model, once the stage's log says what it will be asked.

    Args:
        context: of the stage.
        first: the first request about each seed or turn.
    """
    log_line(forecast(context.kind, context.label, context.identity, context.runtime["endpoint"], first))
    expected, _ = _calls(context.kind, context.identity)
    return stage_asker(context, len(first) * expected)


def forecast(
    kind: str, label: str, identity: Mapping[str, Any], endpoint: Mapping[str, Any], first: Sequence[ChatRequest]
) -> str:
    """A line on what a stage will ask.

    Every answer is taken to be as long as it may be, and every prompt as long as the first one about its seed or turn.

    Args:
        kind: of the stage.
        label: of the stage.
        identity: of the stage.
        endpoint: of the chat model, as the recipe has it.
        first: the first request about each seed or turn.
    """
    expected, at_most = _calls(kind, identity)
    usage = Usage(
        sum(request.prompt_tokens for request in first) * at_most,
        sum(request.max_tokens for request in first) * at_most,
    )
    noun = "seeds" if kind in _OF_SEEDS else "turns"
    more = f", {len(first) * at_most:,} at most" if at_most > expected else ""
    growing = " while texts are as long as their seeds" if kind in _OF_SEEDS else ""
    return (
        f"{label}: {len(first) * expected:,} calls to llm.{endpoint['name']} for {len(first):,} {noun}{more}; at most "
        f"{usage.completion_tokens:,} tokens of answers and about {usage.prompt_tokens:,} of prompts{growing}"
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
