"""Stage `select_pairs`: the pairs with the largest or the smallest margin between their answers.

`data/` has them in the order of the data; `trace/` every pair with its margin, its rank, and why it has none.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.budget import budget_rows
from deita_train.data.arrow_columns import arrow_column, texts_by_code
from deita_train.data.pair_selection import pair_margins, ranked_pairs
from deita_train.data.row_table import as_dataset
from deita_train.data.texts import TextColumn, places_of
from deita_train.errors import UserError
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.validation import StageToValidate, read_once


def run(context: StageContext) -> StageResult:
    """Rank the pairs, and write those that are kept and the trace.

    Raises:
        UserError: fewer pairs than the budget have a margin.
    """
    pairs = datasets.load_from_disk(str(context.parents["data"] / "data"))
    ids = TextColumn(arrow_column(pairs, "id"))
    if "reference" in context.parents:
        margins, reasons = _of_reference(context, ids)
    else:
        margins = pair_margins(pairs, context.identity["by"])
        reasons = _of_values(margins)
    ranked = ranked_pairs(ids, margins, context.identity["order"])
    budget = _budget(context.label, context.identity, reasons)
    return _write(context, pairs, margins, reasons, ranked[:budget])


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many pairs have a reward of the data and how many are kept; by the reference, as many as there are."""
    pairs, _ = read_once(stage.parents["data"])
    reasons: list[str | None] = [None] * len(pairs)
    if "reference" not in stage.parents:
        reasons = _of_values(pair_margins(pairs, stage.identity["by"]))
    budget = _budget(stage.label, stage.identity, reasons)
    yield f"{stage.label}: {budget:,} of {len(pairs):,} pairs are kept, {reasons.count(None):,} can be ranked"


def _budget(label: str, identity: Mapping[str, Any], reasons: Sequence[str | None]) -> int:
    """How many pairs are kept, where `reasons` say why a pair has no margin."""
    budget = budget_rows(identity["budget"], len(reasons))
    assert budget is not None, "pairs have no budget of tokens"
    known = sum(reason is None for reason in reasons)
    if budget > known:
        lacking = ", ".join(f"{reason}: {count}" for reason, count in Counter(filter(None, reasons)).items())
        raise UserError(
            f"{label}: the budget is {budget} pairs, and only {known} of {len(reasons)} have a margin"
            f"{f' ({lacking})' if lacking else ''}. Lower dpo.preferences.select.budget, or complete the data."
        )
    return budget


def _of_values(margins: np.ndarray) -> list[str | None]:
    return ["no_value" if np.isnan(margin) else None for margin in margins]


def _of_reference(context: StageContext, ids: Sequence[str]) -> tuple[np.ndarray, list[str | None]]:
    """How much likelier the chosen answer of each pair is under the reference, and why a pair has no such margin."""
    table = datasets.load_from_disk(str(context.parents["reference"] / "data"))
    names = ("chosen_log_prob", "rejected_log_prob", "chosen_tokens", "rejected_tokens")
    chosen, rejected, chosen_tokens, rejected_tokens = (arrow_column(table, name).to_numpy() for name in names)
    known = np.where((chosen_tokens > 0) & (rejected_tokens > 0), chosen - rejected, np.nan)
    places = places_of(ids, TextColumn(arrow_column(table, "id")))
    margins = np.where(places >= 0, known[places], np.nan)
    lacking = np.where(np.isnan(margins), places >= 0, -1)
    return margins, texts_by_code(lacking, ["not_rendered", "no_answer_within_max_length"]).to_pylist()


def _write(
    context: StageContext, pairs: datasets.Dataset, margins: np.ndarray, reasons: list[str | None], kept: np.ndarray
) -> StageResult:
    ranks = np.full(len(pairs), -1, np.int64)
    ranks[kept] = np.arange(len(kept))
    selected = pairs.select(np.sort(kept))
    selected.save_to_disk(str(context.data_dir))
    trace = {
        "id": arrow_column(pairs, "id"),
        "selection_score": pa.array(margins, pa.float64(), mask=np.isnan(margins)),
        "selection_rank": pa.array(ranks, pa.int64(), mask=ranks < 0),
        "not_ranked": pa.array(reasons, pa.string()),
    }
    as_dataset(pa.table(trace)).save_to_disk(str(context.work_dir / "trace"))
    left_out = {
        **Counter(reason for reason in reasons if reason is not None),
        "not_selected": sum(reason is None for reason in reasons) - len(kept),
    }
    drops = {reason: number for reason, number in left_out.items() if number}
    metrics = {
        "rows_in": len(pairs),
        "rows_out": len(kept),
        "drops": drops,
        "examples": {},
        "margin": {"selected": float(margins[kept].mean()), "all": float(np.nanmean(margins))},
    }
    return StageResult(len(pairs), len(kept), drops, metrics)
