"""AlpacaEval: a model's answers against a baseline's, one judgement each, its order drawn and undone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deita_train.evaluation.judge_calls import VERDICT_TOKENS, WEIGHTED_TOKENS
from deita_train.evaluation.judge_prompts import JudgePrompts
from deita_train.evaluation.results import Result, mean_result
from deita_train.evaluation.verdicts import letter_of_token, read_letter
from deita_train.evolve.elimination import reason_of_call
from deita_train.evolve.operations import draw
from deita_train.evolve.reading import Unusable
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest

TOP_LOGPROBS = 5
"""As AlpacaEval 2 asks for."""
TIE = 0.5


@dataclass(frozen=True)
class Comparison:
    """A question with both outputs.

    Attributes:
        id: of the question.
        instruction: what was asked.
        baseline: the baseline's output.
        output: the model's.
        model_is_first: the order in which the judge sees them.
    """

    id: str
    instruction: str
    baseline: str
    output: str
    model_is_first: bool


def model_is_first(question_id: str, seed: int) -> bool:
    """The order of a comparison, drawn from the id, each with the same probability."""
    return int(draw("alpaca_eval", seed, question_id), 16) % 2 == 0


def comparison_request(prompts: JudgePrompts, comparison: Comparison, *, weighted: bool, attempt: int) -> ChatRequest:
    """Ask which output is better."""
    first, second = comparison.output, comparison.baseline
    if not comparison.model_is_first:
        first, second = second, first
    return prompts.comparison(
        comparison.instruction,
        first,
        second,
        attempt=attempt,
        max_tokens=WEIGHTED_TOKENS if weighted else VERDICT_TOKENS,
        top_logprobs=TOP_LOGPROBS if weighted else None,
    )


def share_of(answer: Answer | Failure, comparison: Comparison, *, weighted: bool) -> float | Unusable:
    """How far the model's output is preferred, 0 to 1, whichever stood first; or why that is not known."""
    first = _weighted_first(answer) if weighted else _first(answer)
    if isinstance(first, Unusable):
        return first
    return first if comparison.model_is_first else 1 - first


def _first(answer: Answer | Failure) -> float | Unusable:
    winner = read_letter(answer)
    return winner if isinstance(winner, Unusable) else {"first": 1.0, "second": 0.0, "tie": TIE}[winner]


def _weighted_first(answer: Answer | Failure) -> float | Unusable:
    """The share of the first letter in the probability that the first token has for either letter."""
    if isinstance(answer, Failure):
        return Unusable(str(reason_of_call(answer)), answer.detail)
    assert answer.first_token is not None, "an endpoint without probabilities is refused before"
    mass = {"first": 0.0, "second": 0.0}
    for token, logprob in answer.first_token.items():
        letter = letter_of_token(token)
        if letter in mass:
            mass[letter] += math.exp(logprob)
    total = mass["first"] + mass["second"]
    if total == 0:
        return Unusable("no_letter", "neither letter is among the likeliest first tokens")
    return mass["first"] / total


def win_rate(shares: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """AlpacaEval's figures from shares between 0 and 1, of at least one question.

    Returns:
        `results`: the win rate, and the discrete one in which a share above a half is a win, in percent;
        `standard_error`: of the win rate in percent, None for a single question; wins, losses and draws.
    """
    values = np.asarray(shares, dtype=np.float64)
    discrete = np.where(values == TIE, TIE, values > TIE).astype(np.float64)
    error = float(values.std(ddof=1) / math.sqrt(len(values))) * 100 if len(values) > 1 else None
    results: dict[str, Result] = {
        "win rate": mean_result(list(values * 100), "percent", seed),
        "discrete win rate": mean_result(list(discrete * 100), "percent", seed),
    }
    counted = {
        "wins": int((values > TIE).sum()),
        "losses": int((values < TIE).sum()),
        "draws": int((values == TIE).sum()),
    }
    return {"results": results, "standard_error": error, **counted}


def shares_of_preferences(preferences: Sequence[float | None]) -> list[float]:
    """Shares from the preferences of AlpacaEval's annotations: 1 the baseline, 2 the model, 0 or 1.5 a draw.

    Those without a preference are left out.
    """
    known = [float(preference) for preference in preferences if preference is not None and not math.isnan(preference)]
    return [TIE if preference == 0 else preference - 1 for preference in known]


def outputs_row(instruction: str, output: str, generator: str, dataset: str | None) -> dict[str, str]:
    """A row of the file of outputs that alpaca_eval reads."""
    row = {"instruction": instruction, "output": output, "generator": generator}
    return row if dataset is None else {"dataset": dataset, **row}
