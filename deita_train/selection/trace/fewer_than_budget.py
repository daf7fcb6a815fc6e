"""A selection that did not meet its budget, in words, from its metrics; this module imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from deita_train.budget import TOKENS, form_of, in_words


def fewer_than_budget(metrics: Mapping[str, Any], setting: str = "select.threshold") -> str | None:
    """A sentence or more on a selection that found less than its budget; None when it found enough.

    Args:
        metrics: of the stage `select`.
        setting: what the reader calls the threshold.
    """
    if metrics["budget_met"]:
        return None
    rejected, text = metrics["rejected"], _found(metrics)
    if metrics.get("method") == "gist":
        return f"{text}; the distance between them weighs more than further rows would (select.distance_weight)."
    if not rejected:
        return f"{text}; there are no more that can be ranked."
    quantiles = ", ".join(f"{name}: {value:.3f}" for name, value in metrics["nearest_similarity"].items())
    return (
        f"{text}; {rejected:,} were too similar to a kept one ({setting} {metrics['threshold']:g}). Similarity to the "
        f"nearest kept row by quantile: {quantiles}.{sufficient_in_words(metrics['sufficient_threshold'])}"
    )


def sufficient_in_words(sufficient: Mapping[str, Any] | None) -> str:
    """A sentence or two, after a space, on the threshold that would meet the budget."""
    if sufficient is None:
        return " No threshold would meet the budget: the pool has too little for it."
    if sufficient["threshold"] >= 1:
        text = " Only a threshold of 1, which lets every row pass, would meet the budget."
    else:
        walks = f"{sufficient['walks']} walk{'s' if sufficient['walks'] != 1 else ''}"
        text = f" A threshold of {sufficient['threshold']:.3f} would meet the budget (found in {walks})."
    return f"{text} Where all similarities are close to 1, centring the embeddings helps more."


def _found(metrics: Mapping[str, Any]) -> str:
    budget = metrics["budget"]
    if form_of(budget) == TOKENS:
        kept = f"{metrics['rows_out']:,} rows with {metrics['budget_found']:,} of the budget of {in_words(budget)}"
    else:
        kept = f"{metrics['rows_out']:,} of the budget of {metrics['budget_wanted']:,} rows"
    return f"{kept} were kept out of {metrics['rows_in']:,}"
