"""What a stage will ask of its chat model, before anything is asked, for `deita-train validate`."""

from collections.abc import Iterator

from deita_train.errors import UserError
from deita_train.llm.endpoint import read_key
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking import direct_score, instag
from deita_train.stages.asking.announcing import FirstRequests, forecast
from deita_train.stages.asking.asker import served_endpoint
from deita_train.stages.asking.evolve import Steps, first_versions
from deita_train.stages.asking.rank import Rounds
from deita_train.stages.validation import StageToValidate, read_once


def validate(stage: StageToValidate) -> Iterator[str]:
    """The calls of a stage, their tokens, and their cost where the endpoint has a price.

    Raises:
        UserError: the endpoint's key is missing, or nothing would be asked.
    """
    endpoint = stage.runtime["endpoint"]
    if "base_url" in endpoint:
        read_key(served_endpoint(endpoint))
    first = FirstRequests.count(_first_requests(stage))
    if not first.number:
        raise UserError(f"{stage.runtime['section']}: there is nothing to ask the chat model about.")
    yield forecast(stage.kind, stage.label, stage.identity, endpoint, first)


def _first_requests(stage: StageToValidate) -> Iterator[ChatRequest]:
    """The first request about each seed or turn; of a ranking, with the seed in place of all its versions."""
    if stage.kind in ("direct_score", "instag"):
        rows, _ = read_once(stage.parents["pool"])
        module = direct_score if stage.kind == "direct_score" else instag
        return module.first_requests(stage.identity, rows)
    evolve = stage if stage.kind == "evolve" else stage.parents["chains"]
    rows, _ = read_once(evolve.parents["seeds"])
    seeds = first_versions(rows, evolve.identity["dimension"])
    if stage.kind == "evolve":
        steps = Steps(stage.identity)
        return (steps.request([seed]) for seed in seeds)
    rounds = Rounds(stage.identity)
    return (rounds.request([seed] * (1 + evolve.identity["evolutions"]), 0, 0) for seed in seeds)
