"""What a stage of answers will do, for `deita-train validate`: the calls of an endpoint, or prompts by the template."""

from collections.abc import Iterator
from typing import Any

from deita_train.llm.endpoint import Price, read_key
from deita_train.stages.asking.asker import served_endpoint
from deita_train.stages.validation import StageToValidate, read_once


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many answers there will be, and of an endpoint the most that they cost.

    Raises:
        UserError: the endpoint's key is missing.
    """
    questions, report = read_once(stage.parents["questions"])
    limit = stage.identity["max_new_tokens"]
    line = f"{stage.label}: {report.turns:,} answers to {len(questions):,} questions, of at most {limit:,} tokens each"
    endpoint = stage.runtime.get("endpoint")
    if endpoint is None:
        yield line
        return
    if "base_url" in endpoint:
        read_key(served_endpoint(endpoint))
    tokens = report.turns * limit
    yield f"{line}: {report.turns:,} calls to llm.{endpoint['name']}{_cost(endpoint.get('price'), tokens)}"


def _cost(price: Any, tokens: int) -> str:
    if price is None:
        return ""
    return f", whose answers cost at most {Price(**price).of(0, tokens):,.2f}; the prompts cost more, by their length"
