"""Selecting rows by any of the methods."""

from collections.abc import Callable, Sequence
from importlib import import_module

import numpy as np
import torch

from deita_train.errors import UserError
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.cost import Size, refuse_days
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.repr_filter.unit_rows import name_rows
from deita_train.selection.settings import METHODS
from deita_train.selection.unrankable import IN_WORDS, Reasons, unrankable_rows


def select_rows(
    candidates: Candidates,
    budget: int | None,
    earlier: Trace | None = None,
    *,
    device: torch.device | str = "cpu",
    group: Group | None = None,
) -> Trace:
    """Select up to `budget` of N rows by the method of the settings; the order of the rows does not matter.

    Args:
        candidates: the rows, the method and its settings.
        budget: how many rows to keep at most; None keeps as many as the method lets pass.
        earlier: the trace of the same selection with another budget, for methods whose budgets nest. A larger one is
            cut; `deita` continues a smaller one and the other methods ignore it. The result is the same without it.
        device: where `deita` multiplies, "cpu" or a CUDA device.
        group: the processes that all call this with the same arguments, to select by `deita` together; None for this
            one alone.

    Returns:
        The trace, `[N]` in the order of the rows. Methods without a diversity filter leave its similarities nan.

    Raises:
        UserError: something that the method reads is missing, a row cannot be ranked (`unrankable_rows` says which),
            the selection would take days (`refuse_days`), or what the method itself raises.
    """
    if budget is not None and budget < 1:
        raise UserError(f"budget is {budget}; it must be at least 1, or left out to keep as many rows as pass.")
    _refuse_missing(candidates)
    _refuse_unrankable(unrankable_rows(candidates), candidates.ids)
    num_rows, rules = len(candidates.ids), candidates.settings.rules
    limit = num_rows if budget is None else min(budget, num_rows)
    select = method_function(candidates.settings.method)
    if rules.launch:
        return select(candidates, limit, earlier=earlier, device=device, group=group)
    assert group is None and torch.device(device).type == "cpu", candidates.settings.method
    if earlier is not None and earlier.num_kept >= limit:
        assert rules.prefixes, "a smaller budget of this method is no prefix of a larger one"
        return trace_of(num_rows, earlier.kept[:limit])
    refuse_days(candidates.settings.method, _size(candidates, limit))
    return select(candidates, limit)


def _size(candidates: Candidates, budget: int) -> Size:
    """What the cost of a selection depends on."""
    return Size(
        num_rows=len(candidates.ids),
        dim=0 if candidates.embeddings is None else candidates.embeddings.shape[1],
        budget=budget,
        clusters=candidates.settings.clusters,
        num_queries=0 if candidates.queries is None else len(candidates.queries.ids),
    )


def method_function(method: str) -> Callable[..., Trace]:
    """The code of a method: `(candidates, budget) -> Trace`, with a budget from 1 to the number of rows."""
    module, _, name = METHODS[method].function.rpartition(".")
    function: Callable[..., Trace] = getattr(import_module(f"deita_train.selection.{module}"), name)
    return function


def _refuse_missing(candidates: Candidates) -> None:
    settings = candidates.settings
    given = {
        "embeddings": candidates.embeddings,
        "target": candidates.queries,
        "seed": settings.seed,
        "column": settings.column,
    }
    missing = sorted(name for name in settings.rules.reads if name in given and given[name] is None)
    if missing:
        raise UserError(
            f"selection method '{settings.method}' needs {' and '.join(missing)}, which the selection was not given."
        )


def _refuse_unrankable(reasons: Reasons, ids: Sequence[str]) -> None:
    for reason in sorted({reason for reason in reasons if reason is not None}):
        found = np.array([place for place, of_row in enumerate(reasons) if of_row == reason])
        raise UserError(
            f"{len(found)} of {len(ids)} rows {IN_WORDS[reason]}: {name_rows(ids, found)}. Complete these rows, or "
            "remove them from the pool."
        )
