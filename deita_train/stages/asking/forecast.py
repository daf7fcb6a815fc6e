"""What a stage will ask of its chat model, before anything is asked: its calls, and the most that answers cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from deita_train.data.conversations import user_turns
from deita_train.errors import UserError
from deita_train.evolve.ranking import calls_per_seed
from deita_train.llm.endpoint import Price, read_key
from deita_train.stages.asking.asker import served_endpoint
from deita_train.stages.validation import StageToValidate, read_once


def validate(stage: StageToValidate) -> Iterator[str]:
    """The calls of a stage, and the most that their answers cost where the endpoint has a price.

    Raises:
        UserError: the endpoint's key is missing, or nothing would be asked.
    """
    endpoint = stage.runtime["endpoint"]
    if "base_url" in endpoint:
        read_key(served_endpoint(endpoint))
    items, noun = _num_items(stage), "seeds" if stage.kind in ("evolve", "rank") else "turns"
    if items == 0:
        raise UserError(f"{stage.runtime['section']}: there is nothing to ask the chat model about.")
    expected, at_most = (items * calls for calls in _calls(stage.kind, stage.identity))
    tokens = at_most * stage.identity["max_tokens"]
    more = f", {at_most:,} at most" if at_most > expected else ""
    yield (
        f"{stage.label}: {expected:,} calls to llm.{endpoint['name']} for {items:,} {noun}{more}; the "
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
