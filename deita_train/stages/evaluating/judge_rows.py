"""The table of judgements, and what a stage that judges reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from deita_train.evaluation.results import Result
from deita_train.stages.context import StageContext

_TEXT = datasets.Value("string")
FEATURES = datasets.Features(
    {
        "id": _TEXT,
        "question_id": _TEXT,
        "turn": datasets.Value("int32"),
        "category": _TEXT,
        "score": datasets.Value("float64"),
        "reason": _TEXT,
        "model_is_first": datasets.List(datasets.Value("bool")),
        "verdicts": datasets.List(_TEXT),
        "attempts": datasets.Value("int32"),
    }
)
"""One row for each judged turn, or question of AlpacaEval. `score` is the rating, or how far the model's answer is
preferred, 0 to 1. `verdicts` are the judge's last words on it, one for each call that its score needs, `model_is_first`
the orders of these calls where two answers were shown, and `attempts` all calls about it."""


@dataclass(frozen=True)
class Judgement:
    """What the judging of all answers came to.

    Attributes:
        rows: of the table.
        results: the figures by name, the headline first.
        facts: further metrics.
        files: texts under `files/` of the artefact, by name.
    """

    rows: Sequence[Mapping[str, Any]]
    results: Mapping[str, Result]
    facts: Mapping[str, Any]
    files: Mapping[str, str]


def row_of(
    *,
    id: str,
    question_id: str,
    turn: int,
    category: str | None,
    score: float | None,
    reason: str | None,
    model_is_first: Sequence[bool] = (),
    verdicts: Sequence[str | None] = (),
    attempts: int = 0,
) -> dict[str, Any]:
    """A row of the table."""
    assert (score is None) == (reason is not None), "a row has a score, or the reason why it has none"
    return {
        "id": id,
        "question_id": question_id,
        "turn": turn,
        "category": category,
        "score": score,
        "reason": reason,
        "model_is_first": list(model_is_first),
        "verdicts": list(verdicts),
        "attempts": attempts,
    }


def read_questions(context: StageContext) -> list[dict[str, Any]]:
    """The questions in their order."""
    return [dict(row) for row in datasets.load_from_disk(str(context.parents["questions"] / "data"))]


def read_answers(context: StageContext, parent: str = "answers") -> dict[tuple[str, int], str | None]:
    """The answers by question and turn, from 0."""
    table = datasets.load_from_disk(str(context.parents[parent] / "data"))
    return {(row["id"], row["turn"]): row["answer"] for row in table}
