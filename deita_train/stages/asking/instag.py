"""Stage `instag`: open tags of each row's instructions by a chat model, made uniform over the pool."""

from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import numpy as np

from deita_train.evolve.prompts import TAGS, Prompts
from deita_train.evolve.reading import Unusable
from deita_train.evolve.tag_table import TagTable
from deita_train.evolve.tags import judge_tags, tag_names, tag_request, uniform_tags
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import judged_answers
from deita_train.stages.asking.rated_rows import Reasons, Turn, Turns, is_settled, leave_column, pool_of
from deita_train.stages.context import StageContext, StageResult

COLUMN = "tags"


def run(context: StageContext) -> StageResult:
    """Ask for the tags of every instruction; a row has those of all its turns."""
    identity, pool = context.identity, pool_of(context)
    turns = Turns(pool, answered=False)
    asker = announced_asker(context, (_request(identity, turn, 0) for turn in turns))
    tags, reasons = TagTable(), Reasons(len(turns))
    tagged = np.zeros(len(pool), bool)
    for place, outcome in judged_answers(
        asker,
        turns,
        lambda turn, attempt: _request(identity, turn, attempt),
        lambda turn, attempt, answer: judge_tags(answer),
        is_settled,
        identity["ask_again"],
    ):
        if isinstance(outcome, Unusable):
            reasons.put(place, outcome.reason)
        else:
            reasons.put(place, None)
            tags.add(int(turns.rows[place]), uniform_tags(outcome))
            tagged[turns.rows[place]] = True
    names = tag_names(tags, fewest_rows=identity["min_count"], similarity=identity["similarity"])
    why = reasons.of_rows(turns.rows, tagged)
    return leave_column(context, asker, COLUMN, tags.lists(names.name_of, tagged), why, {"tags": len(names.rows_with)})


def first_requests(identity: Mapping[str, Any], pool: datasets.Dataset) -> Iterator[ChatRequest]:
    """The first request about every turn."""
    return (_request(identity, turn, 0) for turn in Turns(pool, answered=False))


def _request(identity: Mapping[str, Any], turn: Turn, attempt: int) -> ChatRequest:
    prompts = Prompts("tags", {TAGS: identity["prompt"]})
    return tag_request(prompts, turn[0], attempt=attempt, max_tokens=identity["max_tokens"])
