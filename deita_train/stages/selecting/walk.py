"""A selection to its budget, going on from what a published selection of the same walk decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from deita_train.budget import TOKENS, amount_of, budget_rows, form_of
from deita_train.errors import UserError
from deita_train.selection.methods import select_rows
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.token_budget import walk_tokens
from deita_train.stages.context import StageContext
from deita_train.stages.selecting.trained_lengths import TrainedLengths
from deita_train.store.atomic_io import read_json

# Of the configuration, what is not a setting of the method.
_NOT_OF_METHOD = {"method", "budget", "max_length", "only_trained_turns"}


@dataclass(frozen=True)
class Ranked:
    """The N rows that the method can rank, with what it reads besides their columns.

    `embeddings` are ``[N, D]``, `counted_turns` which user turns of each row its score counts (all when None), and
    `tokens` ``[N]`` int64 what SFT reads of each, for a budget of tokens.
    """

    rows: datasets.Dataset
    embeddings: np.ndarray | None
    counted_turns: list[list[bool]] | None
    tokens: np.ndarray | None

    @classmethod
    def of(
        cls, context: StageContext, rows: datasets.Dataset, embeddings: Any, lengths: TrainedLengths | None
    ) -> "Ranked":
        """What the configuration asks for of the lengths."""
        ids = list(rows["id"])
        in_tokens = context.config["budget"] is not None and form_of(context.config["budget"]) == TOKENS
        return cls(
            rows,
            embeddings,
            counted_turns(context, ids, lengths),
            lengths.tokens_of(ids) if lengths and in_tokens else None,
        )


@dataclass(frozen=True)
class Walked:
    """The trace, what was wanted and found (rows, or training tokens), whether that met the budget, and how many of its
    decisions were taken from which artefact."""

    trace: Trace
    wanted: int | None
    found: int
    met: bool
    reused_from: str | None
    rows_reused: int

    def metrics(self) -> dict[str, Any]:
        """What the report and the terminal say of it."""
        return {
            "budget_wanted": self.wanted,
            "budget_found": self.found,
            "budget_met": self.met,
            "walk_reused_from": self.reused_from,
            "walk_rows_reused": self.rows_reused,
        }


def counted_turns(context: StageContext, ids: Sequence[str], lengths: TrainedLengths | None) -> list[list[bool]] | None:
    """Which turns the score counts; None for all."""
    if not context.config.get("only_trained_turns"):
        return None
    assert lengths is not None
    return lengths.turns_of(ids)


def walk(context: StageContext, ranked: Ranked, pool_rows: int, device: torch.device, group: Group | None) -> Walked:
    """Select up to the budget, with the ranks of `group`; `pool_rows` are those that a share is taken of."""
    config, budget = context.config, context.config["budget"]
    settings = {name: value for name, value in config.items() if name not in _NOT_OF_METHOD}

    def select(num_rows: int | None, earlier: Trace | None) -> Trace:
        return select_rows(
            config["method"],
            ranked.rows,
            budget=num_rows,
            embeddings=ranked.embeddings,
            counted_turns=ranked.counted_turns,
            earlier=earlier,
            device=device,
            group=group,
            **settings,
        )

    earlier, source = _furthest(context, list(ranked.rows["id"]))
    if ranked.tokens is None:
        wanted = None if budget is None else budget_rows(budget, pool_rows)
        trace = select(wanted, earlier)
        found = trace.num_kept
        met = wanted is None or found == wanted
    else:
        wanted = int(amount_of(budget))
        trace, met = walk_tokens(select, ranked.tokens, wanted, earlier)
        found = int(ranked.tokens[trace.kept].sum())
    reused = _rows_reused(config["method"], earlier, trace)
    return Walked(trace, wanted, found, met, source if reused else None, reused)


def _rows_reused(method: str, earlier: Trace | None, trace: Trace) -> int:
    """How many rows were not decided on again. Only the Repr Filter goes on from a smaller budget."""
    if earlier is None or (method != "deita" and earlier.num_kept < trace.num_kept):
        return 0
    return min(earlier.num_seen, trace.num_seen)


def _furthest(context: StageContext, ids: Sequence[str]) -> tuple[Trace | None, str | None]:
    """The trace of the reusable selection that decided on the most rows, and its name."""
    if not context.reusable:
        return None, None
    furthest = max(context.reusable, key=lambda folder: (read_json(folder / "metrics.json")["seen"], folder.name))
    return read_trace(context.label, furthest, ids), furthest.name


def read_trace(label: str, artefact: Path, ids: Sequence[str]) -> Trace:
    """What a published selection decided, for rows in the order of `ids`.

    Raises:
        UserError: its table cannot be read.
    """
    try:
        table = datasets.load_from_disk(str(artefact / "trace")).with_format("arrow")[:]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{label}: the table of {artefact}, whose walk this selection continues, cannot be read ({error}). Remove "
            "that folder, and it is made anew when it is needed."
        ) from error
    places = pc.index_in(pa.array(ids), value_set=table["id"].combine_chunks())
    assert places.null_count == 0 and len(table) == len(ids), f"{artefact} has decided on other rows"
    of_rows = table.take(places)
    blockers = pc.index_in(of_rows["blocked_by"].combine_chunks(), value_set=pa.array(ids, pa.string()))
    return Trace(
        selection_rank=of_rows["selection_rank"].fill_null(-1).to_numpy().astype(np.int64),
        nearest_similarity=of_rows["nearest_similarity"].fill_null(float("nan")).to_numpy().astype(np.float32),
        blocked_by=blockers.fill_null(-1).to_numpy().astype(np.int64),
    )
