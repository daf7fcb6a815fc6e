"""Judging turn by turn: ratings, or pairs in both orders."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from deita_train.evaluation.judge_calls import MAX_TOKENS, ORDERS
from deita_train.evaluation.judge_prompts import PAIR, RATE, JudgePrompts
from deita_train.evaluation.judged_turns import (
    Question,
    Score,
    TurnToJudge,
    check_questions,
    figures,
    outcome_of,
    pair_verdict,
    rating_of,
    turns_to_judge,
)
from deita_train.evolve.reading import Unusable
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.client import Asker
from deita_train.stages.asking.asker import attempts_of, judged_answers
from deita_train.stages.context import StageContext
from deita_train.stages.evaluating.judge_rows import Judgement, read_answers, read_questions, row_of

Found = TypeVar("Found")


class Said(NamedTuple):
    """What an attempt came to, and the judge's words."""

    found: Any
    words: str | None


def judged_turns(context: StageContext, asker: Asker) -> Judgement:
    """Ask about every turn that has an answer."""
    identity = context.identity
    prompts = JudgePrompts.of_identity(identity["way"], identity["prompts"])
    questions = [question_of(row) for row in read_questions(context)]
    check_questions(questions, prompts, references_needed=identity["benchmark"] == "mt_bench")
    baseline = read_answers(context, "baseline") if identity["way"] == PAIR else None
    turns = list(turns_to_judge(questions, read_answers(context), baseline))
    attempts = iter(_attempts(identity, asker, prompts, [turn for turn in turns if isinstance(turn, TurnToJudge)]))
    scores, rows, again = [], [], Counter[str]()
    for turn in turns:
        if isinstance(turn, Score):
            score, row = turn, row_of(**_place(turn), score=None, reason=turn.reason)
        else:
            score, row = _judged(turn, next(attempts), again)
        scores.append(score)
        rows.append(row)
    results = figures(scores, identity["way"], identity["seed"])
    has_reference = sum(isinstance(one, TurnToJudge) and one.question.reference(one.turn) is not None for one in turns)
    facts = {
        "questions": len(questions),
        "with_reference": has_reference,
        "unusable_verdicts": dict(again),
        "answers_of": identity["answers_of"],
        "baseline": identity["baseline"],
    }
    return Judgement(rows, results, facts, {})


def question_of(row: dict[str, Any]) -> Question:
    """A row of the table of questions."""
    return Question(row["id"], tuple(row["turns"]), row["category"], tuple(row["references"] or ()))


def _attempts(
    identity: Any, asker: Asker, prompts: JudgePrompts, turns: Sequence[TurnToJudge]
) -> list[list[list[Said]]]:
    """For each turn and each order in which it is shown, what its attempts came to."""
    orders = ORDERS if identity["way"] == PAIR else ORDERS[:1]
    read = rating_of if identity["way"] == RATE else pair_verdict

    def judge(item: tuple[TurnToJudge, bool], attempt: int, answer: Answer | Failure) -> Said:
        return Said(read(answer), answer.text if isinstance(answer, Answer) else None)

    shown = [(turn, order) for turn in turns for order in orders]
    judged = judged_answers(
        asker,
        shown,
        lambda item, attempt: prompts.request(item[0].shown(item[1]), attempt=attempt, max_tokens=MAX_TOKENS),
        judge,
        lambda said: not isinstance(said.found, Unusable),
        identity["ask_again"],
    )
    found = attempts_of(len(shown), judged)
    return [found[place : place + len(orders)] for place in range(0, len(found), len(orders))]


def _judged(turn: TurnToJudge, attempts: Sequence[Sequence[Said]], again: Counter[str]) -> tuple[Score, dict[str, Any]]:
    """The score of a turn and its row; attempts that could not be read are counted by reason."""
    again.update(said.found.reason for of_order in attempts for said in of_order if isinstance(said.found, Unusable))
    last = [of_order[-1] for of_order in attempts]
    outcome = last[0].found if turn.baseline is None else outcome_of([said.found for said in last])
    score, reason = (None, outcome.reason) if isinstance(outcome, Unusable) else (float(outcome), None)
    row = row_of(
        **_place(turn),
        score=score,
        reason=reason,
        model_is_first=() if turn.baseline is None else ORDERS,
        verdicts=[said.words for said in last],
        attempts=sum(map(len, attempts)),
    )
    return Score(turn.question, turn.turn, score, reason), row


def _place(turn: TurnToJudge | Score) -> dict[str, Any]:
    question = turn.question
    return {"id": turn.id, "question_id": question.id, "turn": turn.turn, "category": question.category}
