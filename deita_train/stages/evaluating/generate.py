"""Stage `generate`: one model's answers to a set of questions, each later turn after its own answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from deita_train.errors import UserError
from deita_train.evaluation.answer_facts import answer_facts
from deita_train.evaluation.dialogues import Reply
from deita_train.stages.context import StageContext, StageResult

_TEXT = datasets.Value("string")
FEATURES = datasets.Features(
    {
        "id": _TEXT, "turn": datasets.Value("int32"), "prompt": _TEXT, "answer": _TEXT,
        "tokens": datasets.Value("int32"), "ended": datasets.Value("bool"), "reason": _TEXT,
    }
)  # fmt: skip


def prepare(context: StageContext) -> None:
    """Render every question, unless a server answers, which has its own template."""
    if "endpoint" not in context.runtime:
        from deita_train.stages.evaluating.local_answers import prepare_questions

        prepare_questions(context, questions_of(context))


def run(context: StageContext) -> StageResult | None:
    """Ask the model, and write its answers in the order of questions and turns."""
    questions = questions_of(context)
    if "endpoint" in context.runtime:
        from deita_train.stages.evaluating.served_answers import served_answers

        given = served_answers(context, questions)
    else:
        from deita_train.stages.evaluating.local_answers import local_answers

        found = local_answers(context, questions)
        if found is None:
            return None
        given = found
    rows = _rows(questions, given.replies)
    replies = [reply for of_question in given.replies for reply in of_question]
    _check_any(context, replies)
    datasets.Dataset.from_list(rows, features=FEATURES).save_to_disk(str(context.data_dir))
    return StageResult(len(rows), len(rows), metrics={**answer_facts(replies), **given.metrics}, device=given.device)


def questions_of(context: StageContext) -> list[dict[str, Any]]:
    """The rows of the parent artefact."""
    table = datasets.load_from_disk(str(context.parents["questions"] / "data"))
    return [dict(row) for row in table]


def _rows(questions: Sequence[Mapping[str, Any]], replies: Sequence[Sequence[Reply]]) -> list[dict[str, Any]]:
    return [
        {
            "id": question["id"],
            "turn": turn,
            "prompt": question["turns"][turn],
            "answer": reply.text,
            "tokens": reply.tokens,
            "ended": reply.ended,
            "reason": reply.reason,
        }
        for question, of_question in zip(questions, replies, strict=True)
        for turn, reply in enumerate(of_question)
    ]


def _check_any(context: StageContext, replies: Sequence[Reply]) -> None:
    if all(reply.text is None for reply in replies):
        reasons = dict(Counter(reply.reason for reply in replies))
        raise UserError(f"{context.label}: no question was answered: {reasons}. The log has the details.")
