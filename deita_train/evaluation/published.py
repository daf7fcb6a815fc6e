"""Names of the figures that publications report, and where a run has the same figure of its own."""

from dataclasses import dataclass

from deita_train.evaluation.open_llm import OPEN_LLM_V1_TASKS

LM_EVAL = "lm_eval"


@dataclass(frozen=True)
class PublishedMeasure:
    """A figure that is published.

    Attributes:
        label: of the stages that measure it, without the model's part.
        result: the name of the figure in their metrics.
        title: what tables call it.
        lowest: of its scale.
        highest: of its scale; of everything but ratings, percent.
    """

    label: str
    result: str
    title: str
    lowest: float = 0.0
    highest: float = 100.0


_MEASURES = {
    "mt_bench": PublishedMeasure("mt_bench", "overall", "MT-Bench", 1.0, 10.0),
    "alpaca_eval": PublishedMeasure("alpaca_eval", "win rate", "AlpacaEval, win rate"),
    "alpaca_eval.length_controlled": PublishedMeasure(
        "alpaca_eval", "length-controlled win rate", "AlpacaEval, length-controlled win rate"
    ),
    "lm_eval.mean": PublishedMeasure(LM_EVAL, "mean", "Open LLM Leaderboard, mean"),
}
LEADERBOARD = tuple(f"{LM_EVAL}.{task.name}" for task in OPEN_LLM_V1_TASKS)
MEASURES = (*_MEASURES, *LEADERBOARD)
"""The figures that any recipe may name; `lm_eval.NAME` is a task of the harness."""


def published_measure(name: str) -> PublishedMeasure | None:
    """The figure of that name, of MEASURES or `lm_eval.` with the name of a task; None where there is none."""
    if name in _MEASURES:
        return _MEASURES[name]
    label, _, task = name.partition(".")
    return PublishedMeasure(LM_EVAL, task, task) if label == LM_EVAL and task else None


def known_measure(name: str) -> PublishedMeasure:
    """The same of a name that the recipe's check has let through."""
    measure = published_measure(name)
    assert measure is not None, name
    return measure
