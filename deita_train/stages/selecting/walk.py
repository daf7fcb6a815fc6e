"""A selection to its budget, which continues a published selection of the same walk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from deita_train.budget import amount_of, budget_rows
from deita_train.data.texts import as_column
from deita_train.errors import UserError, raise_machine_fault
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.select_rows import select_rows
from deita_train.selection.settings import Method
from deita_train.selection.strata import select_by_strata, strata_of
from deita_train.selection.token_budget import walk_tokens
from deita_train.selection.trace.trace_columns import trace_in_columns
from deita_train.stages.context import StageContext
from deita_train.stages.selecting.seen_rows import SeenRows, has_same_vectors
from deita_train.store.atomic_io import read_json


@dataclass(frozen=True)
class Walked:
    """What a selection came to.

    Attributes:
        trace: of N rows.
        wanted: the budget in rows or training tokens; None without a budget.
        found: how many rows or tokens were selected.
        met: whether that meets the budget.
        reused_from: the name of the artefact that decisions were taken from.
        rows_reused: how many decisions were taken from it.
        strata: the counts of each stratum (`Stratified`); None without strata.
    """

    trace: Trace
    wanted: int | None
    found: int
    met: bool
    reused_from: str | None
    rows_reused: int
    strata: dict[str, dict[str, int]] | None = None

    def metrics(self) -> dict[str, Any]:
        """As metrics of the stage."""
        return {
            "budget_wanted": self.wanted,
            "budget_found": self.found,
            "budget_met": self.met,
            "walk_reused_from": self.reused_from,
            "walk_rows_reused": self.rows_reused,
            **({} if self.strata is None else {"strata": self.strata}),
        }


def walk(
    context: StageContext,
    candidates: Candidates,
    tokens: np.ndarray | None,
    pool_rows: int,
    device: torch.device,
    group: Group | None,
    seen: SeenRows | None = None,
) -> Walked:
    """Select up to the budget, together with the ranks of `group`.

    Args:
        context: of the stage.
        candidates: N rows that the method can rank.
        tokens: `[N]` int64, the training tokens of each row, for a budget of tokens.
        pool_rows: how many rows a share is taken of.
        device: of this rank.
        group: the ranks; None for this process alone.
        seen: those of the candidates that are embedded, where not all are.

    Raises:
        UserError: the trace of a published selection cannot be read, or the first row exceeds a budget of tokens.
    """
    budget = context.identity["budget"]
    if "strata" in context.identity:
        return _walk_strata(context, candidates, tokens, pool_rows, device, group)
    select = partial(seen.select if seen else partial(select_rows, candidates), device=device, group=group)
    earlier, source = _furthest(context, candidates.ids)
    if tokens is None:
        wanted = None if budget is None else budget_rows(budget, pool_rows)
        trace = select(wanted, earlier)
        found = trace.num_kept
        met = wanted is None or found == wanted
    else:
        wanted = int(amount_of(budget))
        trace, met = walk_tokens(select, tokens, wanted, earlier)
        found = int(tokens[trace.kept].sum())
    assert met or seen is None, "the embedded rows do not meet the budget"
    reused = _rows_reused(candidates.settings.rules, earlier, trace)
    return Walked(trace, wanted, found, met, source if reused else None, reused)


def _walk_strata(
    context: StageContext,
    candidates: Candidates,
    tokens: np.ndarray | None,
    pool_rows: int,
    device: torch.device,
    group: Group | None,
) -> Walked:
    """The same within each stratum."""
    strata, budget = context.identity["strata"], context.identity["budget"]
    wanted = budget_rows(budget, pool_rows) if tokens is None else int(amount_of(budget))
    assert wanted is not None  # the schema refuses strata without a budget
    chosen = select_by_strata(
        candidates,
        strata_of(candidates, strata),
        wanted,
        strata["share"],
        partial(select_rows, device=device, group=group),
        prefixes=candidates.settings.rules.prefixes,
        tokens=tokens,
    )
    found = chosen.trace.num_kept if tokens is None else int(tokens[chosen.trace.kept].sum())
    return Walked(chosen.trace, wanted, found, chosen.met, None, 0, chosen.counts)


def _rows_reused(rules: Method, earlier: Trace | None, trace: Trace) -> int:
    """How many rows were not decided on again: none where the method had to start over for a larger budget."""
    if earlier is None or (not rules.launch and earlier.num_kept < trace.num_kept):
        return 0
    return min(earlier.num_seen, trace.num_seen)


def _furthest(context: StageContext, ids: Sequence[str]) -> tuple[Trace | None, str | None]:
    """The trace and the name of the artefact that decided on the most rows, by the vectors that are read here."""
    folders = sorted(context.reusable, key=lambda folder: (read_json(folder / "metrics.json")["seen"], folder.name))
    for folder in reversed(folders):
        trace = read_trace(context.label, folder, ids)
        seen = np.flatnonzero((trace.selection_rank >= 0) | (trace.blocked_by >= 0))
        if has_same_vectors(folder, context.parents["embed"], as_column(ids).at(seen)):
            return trace, folder.name
    return None, None


def read_trace(label: str, artefact: Path, ids: Sequence[str]) -> Trace:
    """The decisions of a published selection, for N rows in the order of `ids`.

    Raises:
        UserError: its table cannot be read.
    """
    try:
        table = datasets.load_from_disk(str(artefact / "trace")).with_format("arrow")[:]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise_machine_fault(error, artefact)
        raise UserError(
            f"{label}: the table of {artefact}, whose walk this selection continues, cannot be read ({error}). Remove "
            "that folder; it is rebuilt when needed."
        ) from error
    return trace_in_columns(table, ids)
