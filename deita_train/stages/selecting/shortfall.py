"""A selection that cannot meet its budget: which threshold would, and whether the stage may go on."""

from collections.abc import Mapping
from typing import Any

import torch

from deita_train.budget import SHARE, TOKENS, form_of, in_words
from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.sufficient_threshold import sufficient_threshold
from deita_train.selection.trace.fewer_than_budget import sufficient_in_words
from deita_train.selection.trace.trace_columns import nearest_summary
from deita_train.stages.context import StageContext
from deita_train.stages.selecting.walk import Ranked, Walked


def shortfall(
    context: StageContext, ranked: Ranked, walked: Walked, dropped: str, device: torch.device
) -> dict[str, Any]:
    """Metrics of a budget that was not met; empty for one that was.

    Raises:
        UserError: less than half the budget was found and the recipe does not allow fewer: the settings were not meant
            so. `dropped` says which rows could not be ranked.
    """
    if walked.met:
        return {}
    sufficient = _sufficient(context, ranked, walked, device)
    assert walked.wanted is not None
    if walked.found * 2 < walked.wanted and not context.settings["allow_fewer"]:
        raise UserError(_too_few(context, len(ranked.rows), walked, dropped, sufficient))
    return {"sufficient_threshold": sufficient}


def _sufficient(context: StageContext, ranked: Ranked, walked: Walked, device: torch.device) -> dict[str, Any] | None:
    """The threshold that would meet the budget; None for a method without one, or when no threshold would.

    Found by at most 11 more walks, 7 of them at the usual 0.9.
    """
    threshold, wanted = context.config.get("threshold"), walked.wanted
    assert wanted is not None
    enough = len(ranked.rows) >= wanted if ranked.tokens is None else ranked.tokens.sum() >= wanted
    if threshold is None or threshold >= 1 or not enough:
        return None
    assert ranked.embeddings is not None
    config = context.config
    candidates = Candidates(
        ranked.rows,
        score=config["score"],
        score_turns=config.get("score_turns", "sum"),
        counted_turns=ranked.counted_turns,
    )
    found = sufficient_threshold(
        ranked.embeddings,
        candidates.ids,
        candidates.scores,
        budget=wanted,
        lengths=ranked.tokens,
        above=threshold,
        center=config["center"],
        device=device,
        progress=lambda walks, most: context.progress.update(walks, most, "walks for a sufficient threshold"),
    )
    return {"threshold": found.threshold, "walks": found.num_walks}


def _too_few(
    context: StageContext, num_rows: int, walked: Walked, dropped: str, sufficient: Mapping[str, Any] | None
) -> str:
    summary, budget = nearest_summary(walked.trace), context.config["budget"]
    found = f"{context.label}: only {_found(budget, walked)} were found among {num_rows}"
    if not summary["num_rejected"]:
        return f"{found}{dropped}. Add rows to the pool, lower select.budget, or allow_fewer: true."
    quantiles = ", ".join(f"{q}: {v:.3f}" for q, v in summary["quantiles"].items())
    raise_it = "Raise select.threshold, lower select.budget, set embedding.center: true"
    mend = "Add rows to the pool, lower select.budget" if sufficient is None else raise_it
    return (
        f"{found}. Similarity to the nearest kept row by quantile: {quantiles}.{sufficient_in_words(sufficient)} "
        f"{mend}, or allow_fewer: true."
    )


def _found(budget: Any, walked: Walked) -> str:
    if form_of(budget) == TOKENS:
        return f"{walked.trace.num_kept} rows with {walked.found} of the budget of {in_words(budget, separated=False)}"
    share = f" ({in_words(budget)})" if form_of(budget) == SHARE else ""
    return f"{walked.found} of the budget of {walked.wanted} rows{share}"
