"""A selection that cannot meet its budget: which threshold would, and whether the stage may go on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from deita_train.budget import SHARE, TOKENS, form_of, in_words
from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.sufficient_threshold import sufficient_threshold
from deita_train.selection.trace.fewer_than_budget import sufficient_in_words
from deita_train.selection.trace.trace_columns import nearest_summary
from deita_train.stages.context import StageContext
from deita_train.stages.selecting.walk import Walked


def shortfall(
    context: StageContext,
    candidates: Candidates,
    tokens: np.ndarray | None,
    walked: Walked,
    pool_rows: int,
    dropped: str,
    device: torch.device,
) -> dict[str, Any]:
    """Metrics of a budget that was not met; empty for one that was.

    Args:
        context: of the stage.
        candidates: the N rows that could be ranked.
        tokens: `[N]` int64, the training tokens of each row, for a budget of tokens.
        walked: the selection.
        pool_rows: how many rows the pool has.
        dropped: which rows could not be ranked, for the message.
        device: where the walks for a sufficient threshold multiply.

    Raises:
        UserError: less than half the budget was found, which cannot be what was meant, and the recipe does not allow
            fewer.
    """
    if walked.met:
        return {}
    assert walked.wanted is not None
    sufficient = _sufficient(context, candidates, tokens, walked.wanted, device)
    if walked.found * 2 < walked.wanted and not context.runtime["allow_fewer"]:
        raise UserError(_too_few(context, len(candidates.ids), pool_rows, walked, dropped, sufficient))
    return {"sufficient_threshold": sufficient}


def _sufficient(
    context: StageContext, candidates: Candidates, tokens: np.ndarray | None, wanted: int, device: torch.device
) -> dict[str, Any] | None:
    """The threshold that would meet the budget; None for a method without one, or when no threshold would.

    Found by at most 11 more walks, 7 of them at the usual 0.9.
    """
    settings = candidates.settings
    if "strata" in context.identity:  # whose quotas a walk over the whole pool does not know
        return None
    there = len(candidates.ids) if tokens is None else tokens.sum()
    if "threshold" not in settings.rules.settings or settings.threshold >= 1 or there < wanted:
        return None
    assert candidates.embeddings is not None
    found = sufficient_threshold(
        candidates.embeddings,
        candidates.ids,
        candidates.scores,
        budget=wanted,
        lengths=tokens,
        above=settings.threshold,
        center=settings.center,
        mean=candidates.mean,
        device=device,
        progress=lambda walks, most: context.progress.update(walks, most, "walks for a sufficient threshold"),
    )
    return {"threshold": found.threshold, "walks": found.num_walks}


def _too_few(
    context: StageContext,
    num_rows: int,
    pool_rows: int,
    walked: Walked,
    dropped: str,
    sufficient: Mapping[str, Any] | None,
) -> str:
    summary, budget = nearest_summary(walked.trace), context.identity["budget"]
    found = f"{context.label}: only {_found(budget, walked)} were found among {num_rows}"
    if not summary["num_rejected"]:
        if form_of(budget) != TOKENS:
            share = f" ({in_words(budget)})" if form_of(budget) == SHARE else ""
            found = (
                f"{context.label}: the budget is {walked.wanted} rows{share}, but only {walked.found} of {pool_rows} "
                "can be selected"
            )
        if context.identity["method"] == "gist":
            return (
                f"{found}{dropped}: the distance between these weighs more than further rows would. Lower "
                "select.distance_weight or select.budget, or state select.allow_fewer: true."
            )
        return f"{found}{dropped}. Add rows to the pool, lower select.budget, or state select.allow_fewer: true."
    quantiles = ", ".join(f"{q}: {v:.3f}" for q, v in summary["quantiles"].items())
    fix = "Add rows to the pool, lower select.budget"
    if sufficient is not None:
        fix = "Raise select.threshold, lower select.budget, set embedding.center: true"
    return (
        f"{found}. Similarity to the nearest kept row by quantile: {quantiles}.{sufficient_in_words(sufficient)} "
        f"{fix}, or state select.allow_fewer: true."
    )


def _found(budget: Any, walked: Walked) -> str:
    if form_of(budget) == TOKENS:
        return f"{walked.trace.num_kept} rows with {walked.found} of the budget of {in_words(budget, separated=False)}"
    share = f" ({in_words(budget)})" if form_of(budget) == SHARE else ""
    return f"{walked.found} of the budget of {walked.wanted} rows{share}"
