"""AlpacaEval: each answer against the baseline's, weighted by the judge's probabilities or by its verdict."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deita_train.errors import UserError
from deita_train.evaluation.alpaca_eval import (
    TIE,
    Comparison,
    comparison_request,
    model_is_first,
    outputs_row,
    share_of,
    win_rate,
)
from deita_train.evaluation.judge_prompts import COMPARE, JudgePrompts
from deita_train.evaluation.length_control import (
    PublishedTerms,
    length_adjusted_win_rate,
    length_controlled,
    length_differences,
    read_published_terms,
)
from deita_train.evaluation.results import Result
from deita_train.evolve.reading import Unusable
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.calls import NoLogprobs
from deita_train.llm.client import Asker
from deita_train.stages.asking.asker import attempts_of, judged_answers
from deita_train.stages.context import StageContext
from deita_train.stages.evaluating.judge_rows import Judgement, read_answers, read_questions, row_of

OUTPUTS = "outputs.json"
"""The model's answers in the form that alpaca_eval reads."""
NO_ANSWER = "no_answer"


class Said(NamedTuple):
    """What an attempt came to, and the judge's words."""

    share: float | Unusable
    words: str | None


def judged_comparisons(context: StageContext, asker: Asker) -> Judgement:
    """Ask about every answer that is not the baseline's own words."""
    identity = context.identity
    questions, answers = read_questions(context), read_answers(context)
    terms = _terms(context, len(questions))
    prompts = JudgePrompts.of_identity(COMPARE, identity["prompts"])
    compared = [_comparison(context, row, answers[row["id"], 0]) for row in questions]
    asked = [one for one in compared if one is not None and one.output != one.baseline]
    attempts = _attempts(context, asker, prompts, asked)
    said = {one.id: of_one for one, of_one in zip(asked, attempts, strict=True)}
    rows = [_row(row, one, said) for row, one in zip(questions, compared, strict=True)]
    results, facts = _figures(questions, compared, rows, terms, identity["seed"])
    again = Counter(one.share.reason for of_one in attempts for one in of_one if isinstance(one.share, Unusable))
    facts |= {"questions": len(questions), "unusable_verdicts": dict(again), "answers_of": identity["answers_of"]}
    facts |= {"baseline": _baseline_name(questions), "weighted": identity["weighted"]}
    return Judgement(rows, results, facts, {OUTPUTS: _outputs(questions, answers, identity["answers_of"])})


def _terms(context: StageContext, num_questions: int) -> PublishedTerms | None:
    if context.identity["terms"] is None:
        return None
    difficulty = Path(context.runtime["difficulty"])
    terms = read_published_terms(difficulty, Path(context.runtime["gamed"]))
    if len(terms.difficulty) != num_questions:
        raise UserError(
            f"{context.label}: {difficulty} has {len(terms.difficulty):,} instructions, and there are "
            f"{num_questions:,} questions: the length-controlled win rate is over all of AlpacaEval's, in the order of "
            "its file. State all questions, or leave difficulty: and gamed: out."
        )
    return terms


def _comparison(context: StageContext, row: Mapping[str, Any], output: str | None) -> Comparison | None:
    """None where the model gave no answer."""
    if row["baseline"] is None:
        raise UserError(
            f"{context.label}: question {row['id']} has no output of a baseline to compare with. Name AlpacaEval's "
            "file, whose rows have an instruction and an output."
        )
    if output is None:
        return None
    is_first = model_is_first(row["id"], context.identity["seed"])
    return Comparison(row["id"], row["turns"][0], row["baseline"], output, is_first)


def _attempts(
    context: StageContext, asker: Asker, prompts: JudgePrompts, comparisons: Sequence[Comparison]
) -> list[list[Said]]:
    weighted = bool(context.identity["weighted"])
    if weighted:
        _check_probabilities(context, asker, prompts, comparisons[:1])
    judged = judged_answers(
        asker,
        comparisons,
        lambda one, attempt: comparison_request(prompts, one, weighted=weighted, attempt=attempt),
        lambda one, attempt, answer: _said(context, one, answer),
        lambda said: not isinstance(said.share, Unusable),
        context.identity["ask_again"],
    )
    return attempts_of(len(comparisons), judged)


def _check_probabilities(
    context: StageContext, asker: Asker, prompts: JudgePrompts, first: Sequence[Comparison]
) -> None:
    """Ask about one answer before all others, so that an endpoint without probabilities is not paid for nothing."""
    try:
        for one in first:
            for answer in asker.ask([comparison_request(prompts, one, weighted=True, attempt=0)]):
                _said(context, one, answer)
    except NoLogprobs as error:
        raise _no_probabilities(context, str(error)) from None


def _said(context: StageContext, comparison: Comparison, answer: Answer | Failure) -> Said:
    weighted = bool(context.identity["weighted"])
    words = answer.text if isinstance(answer, Answer) else None
    if weighted and isinstance(answer, Answer) and answer.first_token is None:
        name = context.runtime["endpoint"]["name"]
        raise _no_probabilities(context, f"llm.{name} answers without the probabilities that it was asked for.")
    return Said(share_of(answer, comparison, weighted=weighted), words)


def _no_probabilities(context: StageContext, why: str) -> UserError:
    return UserError(
        f"{context.runtime['section']}.weighted: {why} State weighted: false to go by the judge's verdicts, or name an "
        "endpoint that gives top_logprobs (OpenAI's, vLLM's)."
    )


def _row(question: Mapping[str, Any], comparison: Comparison | None, said: Mapping[str, list[Said]]) -> dict[str, Any]:
    place = {"id": question["id"], "question_id": question["id"], "turn": 0, "category": question["subset"]}
    if comparison is None:
        return row_of(**place, score=None, reason=NO_ANSWER)
    if comparison.id not in said:
        return row_of(**place, score=TIE, reason=None)
    attempts = said[comparison.id]
    share = attempts[-1].share
    score, reason = (None, share.reason) if isinstance(share, Unusable) else (share, None)
    return row_of(
        **place,
        score=score,
        reason=reason,
        model_is_first=[comparison.model_is_first],
        verdicts=[attempts[-1].words],
        attempts=len(attempts),
    )


def _figures(
    questions: Sequence[Mapping[str, Any]],
    compared: Sequence[Comparison | None],
    rows: Sequence[Mapping[str, Any]],
    terms: PublishedTerms | None,
    seed: int,
) -> tuple[dict[str, Result], dict[str, Any]]:
    """The win rates, the length-controlled one first where it is known, as the leaderboard has them."""
    answered = [place for place, one in enumerate(compared) if one is not None]
    outputs = [one.output for one in compared if one is not None]
    scores = np.array([np.nan if rows[p]["score"] is None else rows[p]["score"] for p in answered], np.float64)
    judged = ~np.isnan(scores)
    if not judged.any():
        return {}, {}
    figures = win_rate(list(scores[judged]), seed)
    results: dict[str, Result] = figures.pop("results")
    baselines = [questions[place]["baseline"] for place in answered]
    lengths = length_differences(baselines, outputs)
    number = int(judged.sum())
    if terms is None:
        rate = length_adjusted_win_rate(lengths[judged], scores[judged])
        results = {**results, "length-adjusted win rate (not the published one)": _percent(rate, number)}
    else:
        fitted = length_controlled(lengths, scores, answered, terms)
        results = {"length-controlled win rate": _percent(fitted.win_rate, number), **results}
        figures["length_controlled_coefficients"] = list(fitted.coefficients)
    figures["mean_characters"] = float(np.mean([len(output) for output in outputs]))
    figures["baseline_mean_characters"] = float(np.mean([len(output) for output in baselines]))
    return results, figures


def _percent(value: float, questions: int) -> Result:
    return Result(value, None, None, questions, "percent")


def _baseline_name(questions: Sequence[Mapping[str, Any]]) -> str | None:
    names = {row["baseline_name"] for row in questions}
    return names.pop() if len(names) == 1 else None


def _outputs(questions: Sequence[Mapping[str, Any]], answers: Mapping[tuple[str, int], str | None], model: str) -> str:
    """The file of outputs; a question without an answer is not in it."""
    rows = [
        outputs_row(row["turns"][0], output, model, row["subset"])
        for row in questions
        if (output := answers[row["id"], 0]) is not None
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
