"""What the figures of a judge are comparable with, in sentences for the report."""

from collections.abc import Mapping
from typing import Any

from deita_train.evaluation.judge_prompts import COMPARE, PAIR, own_prompts
from deita_train.number_text import count, plural

TITLES = {"judged": "Judged questions", "mt_bench": "MT-Bench", "alpaca_eval": "AlpacaEval"}
_MT_BENCH_QUESTIONS, _ALPACA_EVAL_QUESTIONS = 80, 805


def notes(identity: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """The sentences on one stage."""
    rules = identity["model"].get("builtin")
    if rules is not None:
        return [
            f"The judge is no model but rules of this package (builtin: {rules}) that know the right answers to the "
            "quickstart's tasks: the figures are comparable with nothing else.",
            *_of_verdicts(metrics),
        ]
    comparable = _of_comparisons(identity, metrics) if identity["way"] == COMPARE else _of_turns(identity, metrics)
    return [*comparable, *_of_verdicts(metrics)]


def _of_turns(identity: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    found = []
    fastchat, mt_bench = identity["prompts"]["fastchat"], identity["benchmark"] == "mt_bench"
    if fastchat and mt_bench and metrics["questions"] == _MT_BENCH_QUESTIONS:
        found.append(
            "Asked with FastChat's prompts: comparable with published figures of the same judge (those of the DEITA "
            "paper are gpt-4's)."
        )
    elif fastchat:
        found.append("Asked with FastChat's prompts: comparable with figures of the same questions and the same judge.")
    else:
        found.append(
            "Asked in the package's own words: comparable with other models of the same judge and the same questions, "
            "not with published figures."
        )
    if mt_bench and metrics["questions"] != _MT_BENCH_QUESTIONS:
        found.append(f"{plural(metrics['questions'], 'question')} in place of MT-Bench's {_MT_BENCH_QUESTIONS}.")
    if identity["way"] == PAIR:
        found.append(f"Pairs with {identity['baseline']} in both orders; a win is one in both.")
    return found


def _of_comparisons(identity: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    way = "weighted by the judge's probabilities" if identity["weighted"] else "by the judge's verdicts"
    against = f" against {metrics['baseline']}" if metrics["baseline"] else ""
    found = [
        f"Preferences{against}, {way}, in words other than AlpacaEval's: comparable with other models of the same "
        "judge, not with its leaderboard. files/outputs.json of the stage is what alpaca_eval reads for that."
    ]
    if identity["prompts"] != own_prompts(COMPARE).identity():
        found[0] = (
            f"Preferences{against}, {way}, in the words of prompts:; comparable with figures of the same words and "
            "judge."
        )
    if metrics["questions"] != _ALPACA_EVAL_QUESTIONS:
        found.append(f"{plural(metrics['questions'], 'question')} in place of AlpacaEval's {_ALPACA_EVAL_QUESTIONS}.")
    if identity["terms"] is None:
        found.append(
            "The length-adjusted win rate is a regression on length alone, not the published length-controlled one, "
            "which needs difficulty: and gamed:."
        )
    return found


def _of_verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """What was not judged, or only at the second attempt."""
    found = []
    if metrics["without_score"]:
        reasons = ", ".join(f"{reason} {count(number)}" for reason, number in metrics["without_score"].items())
        found.append(
            f"{count(sum(metrics['without_score'].values()))} of {count(metrics['judged'])} have no score ({reasons}) "
            "and are left out of the figures."
        )
    if metrics["unusable_verdicts"]:
        reasons = ", ".join(f"{reason} {count(number)}" for reason, number in metrics["unusable_verdicts"].items())
        found.append(f"Verdicts that could not be read, and were asked again as far as ask_again allows: {reasons}.")
    return found
