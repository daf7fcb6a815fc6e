"""Stage `direct_score`: a chat model rates each turn alone, from 1 to 6; a row has the mean (the paper's baseline)."""

from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.evolve.direct_score import direct_score_request, judge_direct_score
from deita_train.evolve.prompts import DIRECT_SCORE, Prompts
from deita_train.evolve.ranking import level_of_mean
from deita_train.evolve.reading import Unusable
from deita_train.evolve.score_reading import HIGHEST, LOWEST
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import judged_answers
from deita_train.stages.asking.rated_rows import Reasons, Turn, Turns, is_settled, leave_column, pool_of
from deita_train.stages.context import StageContext, StageResult

COLUMN = "direct_score"


def run(context: StageContext) -> StageResult:
    """Ask about every turn, for quality about those that have an answer."""
    identity, pool = context.identity, pool_of(context)
    turns = turns_of(identity, pool)
    asker = announced_asker(context, (_request(identity, turn, 0) for turn in turns))
    scores, reasons = np.zeros(len(turns), np.int8), Reasons(len(turns))
    for place, outcome in judged_answers(
        asker,
        turns,
        lambda turn, attempt: _request(identity, turn, attempt),
        lambda turn, attempt, answer: judge_direct_score(answer),
        is_settled,
        identity["ask_again"],
    ):
        scores[place], reason = (0, outcome.reason) if isinstance(outcome, Unusable) else (outcome, None)
        reasons.put(place, reason)
    counts = np.bincount(turns.rows[scores > 0], minlength=len(pool))
    sums = np.bincount(turns.rows, weights=scores, minlength=len(pool)).astype(np.int64)
    rated = counts > 0
    means = sums / np.maximum(counts, 1)
    why = reasons.of_rows(turns.rows, rated, without_turns="no_response")
    found = _distribution(sums[rated], counts[rated])
    return leave_column(context, asker, COLUMN, pa.array(means, mask=~rated), why, found)


def turns_of(identity: Mapping[str, Any], pool: datasets.Dataset) -> Turns:
    """The turns that are rated."""
    return Turns(pool, answered=identity["dimension"] == "quality")


def first_requests(identity: Mapping[str, Any], pool: datasets.Dataset) -> Iterator[ChatRequest]:
    """The first request about every turn that is rated."""
    return (_request(identity, turn, 0) for turn in turns_of(identity, pool))


def _request(identity: Mapping[str, Any], turn: Turn, attempt: int) -> ChatRequest:
    prompts = Prompts(identity["dimension"], {DIRECT_SCORE: identity["prompt"]})
    return direct_score_request(prompts, *turn, attempt=attempt, max_tokens=identity["max_tokens"])


def _distribution(sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """The mean over the rated rows, and how many of them have which level; nothing where no row was rated.

    Args:
        sums: of each rated row's scores, `[N]` int64.
        counts: its rated turns, `[N]`.
    """
    if not len(sums):
        return {}
    levels = np.bincount(level_of_mean(sums, counts), minlength=HIGHEST + 1)
    mean = sum(array("d", sums / counts)) / len(sums)
    return {"mean": mean, "scores": {str(level): int(levels[level]) for level in range(LOWEST, HIGHEST + 1)}}
