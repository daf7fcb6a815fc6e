"""Stage `instag`: open tags of each row's instructions by a chat model, made uniform over the pool."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from deita_train.evolve.prompts import TAGS, Prompts
from deita_train.evolve.reading import Unusable
from deita_train.evolve.tags import judge_tags, tag_names, tag_request
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import asked_until_usable
from deita_train.stages.asking.rated_rows import Turn, is_settled, leave_column, pool_of, turns_of
from deita_train.stages.context import StageContext, StageResult

COLUMN = "tags"


def run(context: StageContext) -> StageResult:
    """Ask for the tags of every instruction; a row has those of all its turns."""
    identity = context.identity
    pool = pool_of(context)
    turns = turns_of(pool)
    asker = announced_asker(context, first_requests(identity, turns))
    attempts = asked_until_usable(
        asker,
        turns,
        lambda turn, attempt: _request(identity, turn, attempt),
        lambda turn, attempt, answer: judge_tags(answer),
        is_settled,
        identity["ask_again"],
    )
    ids = list(pool["id"])
    found: dict[str, list[str]] = {}
    reasons: list[str | None] = [None] * len(ids)
    for (row, _, _), of_turn in zip(turns, attempts, strict=True):
        last = of_turn[-1]
        if isinstance(last, Unusable):
            reasons[row] = last.reason
        else:
            found.setdefault(ids[row], []).extend(last)
    names = tag_names(found, fewest_rows=identity["min_count"], similarity=identity["similarity"])
    values = [names.of_row(found[row_id]) if row_id in found else None for row_id in ids]
    reasons = [None if value is not None else reason for value, reason in zip(values, reasons, strict=True)]
    feature = datasets.List(datasets.Value("string"))
    return leave_column(context, asker, COLUMN, feature, values, reasons, {"tags": len(names.rows_with)})


def first_requests(identity: Mapping[str, Any], turns: Sequence[Turn]) -> list[ChatRequest]:
    """The first request about every turn."""
    return [_request(identity, turn, 0) for turn in turns]


def _request(identity: Mapping[str, Any], turn: Turn, attempt: int) -> ChatRequest:
    prompts = Prompts("tags", {TAGS: identity["prompt"]})
    return tag_request(prompts, turn[1], attempt=attempt, max_tokens=identity["max_tokens"])
