"""The chat model of a stage: where it answers, within which limits, and the store of what it has answered."""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from deita_train.data.lazy_sequence import Mapped
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.client import Asker
from deita_train.llm.endpoint import Endpoint, Price
from deita_train.llm.requests import ChatRequest
from deita_train.stages.context import StageContext
from deita_train.stages.stage_model import model_path
from deita_train.store.keys import canonical_json

Item = TypeVar("Item")
Judged = TypeVar("Judged")


def stage_asker(context: StageContext, expected: int = 0) -> Asker:
    """The stage's chat model, with every answer kept in the runs folder, so that none is paid twice.

    Args:
        context: of the stage.
        expected: how many requests it will make in all, for the progress; 0 if that is not known yet.
    """
    store = AnswerStore(Path(context.runtime["answers"]))

    def tick(done: int, total: int, note: str) -> None:
        context.progress.update(done, total, "answers", note)

    return Asker(stage_endpoint(context), store, tick, log_line, expected=expected)


def stage_endpoint(context: StageContext) -> Endpoint:
    """The endpoint that a stage's runtime describes."""
    stated = context.runtime["endpoint"]
    if "base_url" in stated:
        return served_endpoint(stated)
    model = model_in_keys(context.identity)
    if "builtin" in stated:
        return Endpoint(**_named_fields(stated), model=model)
    return Endpoint(**_named_fields(stated), model=model, local=model_path(context))


def model_in_keys(identity: Mapping[str, Any]) -> str:
    """What stands for a stage's chat model in the keys of its requests."""
    model = identity["model"]
    return str(model["served"]) if "served" in model else canonical_json(model)


def served_endpoint(stated: Mapping[str, Any]) -> Endpoint:
    """The endpoint of a model behind a server."""
    return Endpoint(**_named_fields(stated))


def _named_fields(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's fields of an endpoint by the endpoint's own names."""
    fields = {name: value for name, value in stated.items() if name not in ("deadline_seconds", "price")}
    price = stated.get("price")
    return {**fields, "deadline_s": stated["deadline_seconds"], "price": None if price is None else Price(**price)}


def judged_answers(
    asker: Asker,
    items: Sequence[Item],
    request: Callable[[Item, int], ChatRequest],
    judge: Callable[[Item, int, Answer | Failure], Judged],
    is_settled: Callable[[Judged], bool],
    ask_again: int,
) -> Iterator[tuple[int, Judged]]:
    """Ask for every item, and again for those whose answer cannot be used and may come out otherwise.

    Args:
        asker: the chat model.
        items: what to ask about; read where they are needed, and several times.
        request: of an item and the number of attempts before.
        judge: makes something of the answer.
        is_settled: whether that is enough, or asking again would not help.
        ask_again: how often an item is asked again at most.

    Yields:
        An item's place and what became of an attempt: the first attempt of all items in their order, then the second of
        those that need one, and so on.
    """
    waiting: Sequence[int] = range(len(items))
    for attempt in range(ask_again + 1):
        again = array("q")
        requests = Mapped(partial(_request_at, items, request, attempt), waiting)
        for place, answer in zip(waiting, asker.each(requests), strict=True):
            judged = judge(items[place], attempt, answer)
            if not is_settled(judged):
                again.append(place)
            yield place, judged
        if not again:
            return
        waiting = again


def _request_at(
    items: Sequence[Item], request: Callable[[Item, int], ChatRequest], attempt: int, place: int
) -> ChatRequest:
    return request(items[place], attempt)


def attempts_of(number: int, judged: Iterable[tuple[int, Judged]]) -> list[list[Judged]]:
    """What became of all attempts of each of a few items, in their order, from `judged_answers`."""
    attempts: list[list[Judged]] = [[] for _ in range(number)]
    for place, outcome in judged:
        attempts[place].append(outcome)
    return attempts


def spent(asker: Asker) -> dict[str, Any]:
    """What a stage asked and what that cost, as metrics."""
    return {"spending": asker.spending.as_dict()}


def log_line(line: str) -> None:
    """Write a line to the stage's log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
