"""What a judge will be asked, before anything is: its calls, and about what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.evaluation.judge_calls import calls_of_judge
from deita_train.evaluation.judge_prompts import COMPARE, JudgePrompts
from deita_train.evaluation.judged_turns import check_questions
from deita_train.evaluation.length_control import read_published_terms
from deita_train.llm.endpoint import Price, read_key
from deita_train.stages.asking.asker import served_endpoint
from deita_train.stages.evaluating.judge_turns import question_of
from deita_train.stages.validation import StageToValidate, read_once


def validate(stage: StageToValidate) -> Iterator[str]:
    """The calls of a stage, about how many tokens they have, and what these cost where the endpoint has a price.

    Raises:
        UserError: the endpoint's key is missing, or the questions cannot be judged so.
    """
    identity, endpoint = stage.identity, stage.runtime["endpoint"]
    if "base_url" in endpoint:
        read_key(served_endpoint(endpoint))
    table, _ = read_once(stage.parents["questions"])
    questions = [dict(row) for row in table]
    _check(stage, questions)
    longest_answer = int(stage.parents["answers"].identity["max_new_tokens"])
    asked = calls_of_judge(identity, questions, longest_answer)
    more = f", {asked.most_calls:,} at most" if asked.most_calls > asked.calls else ""
    yield (
        f"{stage.label}: {asked.calls:,} calls to llm.{endpoint['name']} about {len(questions):,} questions{more}; "
        f"{_tokens(endpoint, asked.prompt_tokens, asked.answer_tokens)}"
    )


def _tokens(endpoint: Mapping[str, Any], prompts: int, answers: int) -> str:
    if "builtin" in endpoint:
        return "rules of this package, which cost nothing"
    price = endpoint.get("price")
    cost = (
        "" if price is None else f": {Price(**price).of(prompts, answers):,.2f} at most, if every verdict can be read"
    )
    return (
        f"about {prompts:,} tokens of prompts where all answers are of full length, and at most {answers:,} of "
        f"verdicts{cost}"
    )


def _check(stage: StageToValidate, questions: Sequence[Mapping[str, Any]]) -> None:
    """Refuse now what the stage would refuse after the answers were made."""
    identity = stage.identity
    if identity["way"] != COMPARE:
        prompts = JudgePrompts.of_identity(identity["way"], identity["prompts"])
        needed = identity["benchmark"] == "mt_bench"
        try:
            check_questions([question_of(dict(row)) for row in questions], prompts, references_needed=needed)
        except UserError as error:
            raise UserError(f"{stage.runtime['section']}: {error}") from None
        return
    without = next((row["id"] for row in questions if row["baseline"] is None), None)
    if without is not None:
        raise UserError(
            f"{stage.runtime['section']}.questions: question {without} has no output of a baseline to compare with. "
            "Name AlpacaEval's file, whose rows have an instruction and an output."
        )
    if identity["terms"] is not None:
        terms = read_published_terms(Path(stage.runtime["difficulty"]), Path(stage.runtime["gamed"]))
        if len(terms.difficulty) != len(questions):
            raise UserError(
                f"{stage.runtime['section']}.difficulty: it has {len(terms.difficulty):,} instructions, and there are "
                f"{len(questions):,} questions; the length-controlled win rate is over all of them."
            )
