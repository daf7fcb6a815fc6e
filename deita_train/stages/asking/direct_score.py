"""Stage `direct_score`: a chat model rates each turn alone, from 1 to 6; a row has the mean (the paper's baseline)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from deita_train.evolve.direct_score import direct_score_request, judge_direct_score
from deita_train.evolve.prompts import DIRECT_SCORE, Prompts
from deita_train.evolve.ranking import nearest_level
from deita_train.evolve.score_reading import HIGHEST, LOWEST
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import asked_until_usable
from deita_train.stages.asking.rated_rows import Turn, is_settled, leave_column, pool_of, turns_of
from deita_train.stages.context import StageContext, StageResult

COLUMN = "direct_score"


def run(context: StageContext) -> StageResult:
    """Ask about every turn, for quality about those that have an answer."""
    identity = context.identity
    pool = pool_of(context)
    turns = _rated(identity, turns_of(pool))
    asker = announced_asker(context, first_requests(identity, turns))
    attempts = asked_until_usable(
        asker,
        turns,
        lambda turn, attempt: _request(identity, turn, attempt),
        lambda turn, attempt, answer: judge_direct_score(answer),
        is_settled,
        identity["ask_again"],
    )
    scores: list[list[int]] = [[] for _ in pool]
    reasons: list[str | None] = ["no_response"] * len(pool)
    for (row, _, _), of_turn in zip(turns, attempts, strict=True):
        last = of_turn[-1]
        if isinstance(last, int):
            scores[row].append(last)
        else:
            reasons[row] = last.reason
    values = [sum(of_row) / len(of_row) if of_row else None for of_row in scores]
    reasons = [None if value is not None else reason for value, reason in zip(values, reasons, strict=True)]
    found = _distribution([of_row for of_row in scores if of_row])
    return leave_column(context, asker, COLUMN, datasets.Value("float64"), values, reasons, found)


def first_requests(identity: Mapping[str, Any], turns: Sequence[Turn]) -> list[ChatRequest]:
    """The first request about every turn that is rated."""
    return [_request(identity, turn, 0) for turn in _rated(identity, turns)]


def _rated(identity: Mapping[str, Any], turns: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in turns if identity["dimension"] == "complexity" or turn[2] is not None]


def _request(identity: Mapping[str, Any], turn: Turn, attempt: int) -> ChatRequest:
    prompts = Prompts(identity["dimension"], {DIRECT_SCORE: identity["prompt"]})
    return direct_score_request(prompts, turn[1], turn[2], attempt=attempt, max_tokens=identity["max_tokens"])


def _distribution(scores: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The mean over the rated rows, and how many of them have which level; nothing where no row was rated."""
    if not scores:
        return {}
    counted = Counter(map(nearest_level, scores))
    mean = sum(sum(of_row) / len(of_row) for of_row in scores) / len(scores)
    return {"mean": mean, "scores": {str(level): counted[level] for level in range(LOWEST, HIGHEST + 1)}}
