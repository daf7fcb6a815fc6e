"""What a stage will ask of its chat model, before anything is asked: its calls, and the most that answers cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from deita_train.data.conversations import user_turns
from deita_train.errors import UserError
from deita_train.evolve.ranking import calls_per_seed
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Price, read_key
from deita_train.stages.asking.asker import log_line, served_endpoint, stage_asker
from deita_train.stages.context import StageContext
from deita_train.stages.validation import StageToValidate, read_once


def validate(stage: StageToValidate) -> Iterator[str]:
    """The calls of a stage, and the most that their answers cost where the endpoint has a price.

    Raises:
        UserError: the endpoint's key is missing, or nothing would be asked.
    """
    endpoint = stage.runtime["endpoint"]
    if "base_url" in endpoint:
        read_key(served_endpoint(endpoint))
    items = _num_items(stage)
    if items == 0:
        raise UserError(f"{stage.runtime['section']}: there is nothing to ask the chat model about.")
    yield forecast(stage.kind, stage.label, stage.identity, endpoint, items)


def announced_asker(context: StageContext, items: int) -> Asker:
    """The stage's chat model, once the stage's log says what it will be asked about so many seeds or turns."""
    endpoint = context.runtime["endpoint"]
    log_line(forecast(context.kind, context.label, context.identity, endpoint, items))
    expected, _ = _calls(context.kind, context.identity)
    return stage_asker(context, items * expected)


def forecast(kind: str, label: str, identity: Mapping[str, Any], endpoint: Mapping[str, Any], items: int) -> str:
    """A line on what a stage will ask about so many seeds or turns."""
    noun = "seeds" if kind in ("evolve", "rank") else "turns"
    expected, at_most = (items * calls for calls in _calls(kind, identity))
    tokens = at_most * identity["max_tokens"]
    more = f", {at_most:,} at most" if at_most > expected else ""
    return (
        f"{label}: {expected:,} calls to llm.{endpoint['name']} for {items:,} {noun}{more}; the "
        f"answers are at most {tokens:,} tokens{_cost(endpoint.get('price'), tokens)}"
    )


def _calls(kind: str, identity: Mapping[str, Any]) -> tuple[int, int]:
    """How many calls a row costs, as expected and at most."""
    if kind == "evolve":
        return calls_per_seed(identity["evolutions"], 0, 0)
    return calls_per_seed(0, identity.get("orders", 1), identity["ask_again"])


def _num_items(stage: StageToValidate) -> int:
    """The seeds or turns that are asked about: of quality, only those with an answer."""
    if stage.kind == "rank":
        return _num_items(stage.parents["chains"])
    rows, _ = read_once(stage.parents["seeds" if stage.kind == "evolve" else "pool"])
    turns = [user_turns(messages) for messages in rows["messages"]]
    asked = [of_row[0] for of_row in turns] if stage.kind == "evolve" else [turn for of_row in turns for turn in of_row]
    return (
        sum(answer is not None for _, answer in asked) if stage.identity.get("dimension") == "quality" else len(asked)
    )


def _cost(price: Mapping[str, float] | None, tokens: int) -> str:
    if price is None:
        return ""
    return f", which cost at most {Price(**price).of(0, tokens):,.2f}; the prompts cost more, by their length"
