"""Stage `select`: ranking and diversity filter as datasets map and filter, with the trace of every decision."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from deita_train.data.embeddings import embeddings_of
from deita_train.errors import UserError
from deita_train.scoring.evol_score import evol_score
from deita_train.selection.methods import unusable_rows
from deita_train.selection.repr_filter.process_group import Group, ProcessGroup
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.trace.trace_columns import attach_trace, keep_selected, nearest_summary
from deita_train.selection.usable import IN_WORDS
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import start_ranks
from deita_train.stages.selecting.shortfall import shortfall
from deita_train.stages.selecting.trained_lengths import TrainedLengths, read_trained_lengths
from deita_train.stages.selecting.walk import Ranked, counted_turns, walk

DIMENSIONS = ("complexity", "quality")
# Columns of the pool that are not measured values.
_NOT_MEASURED = {"id", "messages", "source", "selection_rank", "nearest_similarity", "evol_score"}


def run(context: StageContext) -> StageResult | None:
    """Join by id, walk, attach the trace, keep the selected rows in rank order.

    On several ranks all walk together, and rank 0 writes what each of them knows.
    """
    device, group = _processes(context)
    datasets.disable_caching()  # a map over a published table would leave its cache beside it
    lengths = None
    if "lengths" in context.parents:
        lengths = read_trained_lengths(context.parents["lengths"], context.config["max_length"])
    pool = _with_scores(context, lengths)
    rows, drops = _rankable(pool, context, lengths)
    embedded = context.parents.get("embed")
    embeddings = embeddings_of(embedded / "data", list(rows["id"])) if embedded is not None else None
    ranked = Ranked.of(context, rows, embeddings, lengths)
    walked = walk(replace(context, reusable=_reusable(context)), ranked, len(pool), device, group)
    if context.rank != 0:
        return None
    fewer = shortfall(context, ranked, walked, f" ({_counts(drops)})" if drops else "", device)
    traced = attach_trace(rows, walked.trace, list(rows["id"]))
    selected = keep_selected(traced, None)
    selected.save_to_disk(str(context.data_dir))
    _trace_table(traced).save_to_disk(str(context.work_dir / "trace"))
    drops["not_selected"] = len(rows) - len(selected)
    metrics = {**_metrics(context, pool, traced, selected, walked.trace), **walked.metrics(), **fewer}
    return StageResult(len(pool), len(selected), {k: v for k, v in drops.items() if v}, metrics, device.type)


def _reusable(context: StageContext) -> tuple[Path, ...]:
    """Those of rank 0: what the ranks go on from must be the same, whatever is published or removed meanwhile."""
    if context.world_size == 1:
        return context.reusable
    told = [context.reusable]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def _processes(context: StageContext) -> tuple[torch.device, Group | None]:
    """The device of this rank, and the ranks of the launch; without a launch one process on the CPU."""
    if "launch" not in context.settings:
        return torch.device("cpu"), None
    device = start_ranks(context)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{context.label}: the launch wants a GPU, and torch finds none. Check the driver, or state "
            "select.launch: cpu."
        )
    return device, ProcessGroup(device) if context.world_size > 1 else None


def _with_scores(context: StageContext, lengths: TrainedLengths | None) -> datasets.Dataset:
    """The pool with the scores of every scorer that the method reads, joined by id, and the evol score."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    for dimension in DIMENSIONS:
        if dimension not in context.parents:
            continue
        turns = datasets.List(datasets.Value("float32"))
        pool = _joined(pool, context.parents[dimension], f"{dimension}_scores", turns)
    if "perplexity" in context.parents:
        pool = _with_measured(pool, context)
    if all(dimension in context.parents for dimension in DIMENSIONS):
        how = context.config.get("score_turns", "sum")
        counted = counted_turns(context, list(pool["id"]), lengths)
        pool = pool.map(
            lambda complexity, quality, row: {
                "evol_score": evol_score(complexity, quality, how, counted[row] if counted else None)
            },
            input_columns=["complexity_scores", "quality_scores"],
            with_indices=True,
            features=datasets.Features({**pool.features, "evol_score": datasets.Value("float64")}),
            load_from_cache_file=False,
        )
    return pool


def _with_measured(pool: datasets.Dataset, context: StageContext) -> datasets.Dataset:
    """The pool with the column that the stage `perplexity` measured and the method reads, joined by id."""
    column = context.config["column"]
    if column in pool.column_names:
        raise UserError(
            f"{context.label}: the pool has a column {column!r}, and perplexity: measures one. State select.column: "
            f"{column} to take the pool's, or rename it in the data."
        )
    return _joined(pool, context.parents["perplexity"], column, datasets.Value("float64"))


def _joined(pool: datasets.Dataset, artefact: Path, column: str, feature: Any) -> datasets.Dataset:
    """The pool with a column of another table, joined by id."""
    table = datasets.load_from_disk(str(artefact / "data"))
    by_id = dict(zip(table["id"], table[column], strict=True))
    missing = [row_id for row_id in pool["id"] if row_id not in by_id]
    assert not missing, f"{len(missing)} rows of the pool have no entry in {artefact}"
    return pool.add_column(column, [by_id[row_id] for row_id in pool["id"]], feature=feature)


def _rankable(
    pool: datasets.Dataset, context: StageContext, lengths: TrainedLengths | None
) -> tuple[datasets.Dataset, Counter[str]]:
    """The rows that the method can rank, and how many it cannot by reason."""
    read = {name: context.config[name] for name in ("score", "column", "quality_weight") if name in context.config}
    counted = counted_turns(context, list(pool["id"]), lengths)
    reasons = unusable_rows(context.config["method"], pool, counted_turns=counted, **read)
    kept = [index for index, reason in enumerate(reasons) if reason is None]
    drops = Counter(reason for reason in reasons if reason is not None)
    if not kept:
        raise UserError(f"{context.label}: no row of the pool can be ranked: {_counts(drops)}.")
    return (pool.select(kept) if drops else pool), drops


def _counts(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {IN_WORDS[reason]}" for reason, number in drops.items())


def _trace_table(traced: datasets.Dataset) -> datasets.Dataset:
    """Every row of the pool without its text: what became of it, and why."""
    sizes = traced.map(
        lambda messages: {
            "num_turns": sum(message["role"] == "user" for message in messages),
            "num_chars": sum(len(message["content"]) for message in messages),
        },
        input_columns=["messages"],
        load_from_cache_file=False,
    )
    return sizes.remove_columns("messages")


def _metrics(
    context: StageContext, pool: datasets.Dataset, traced: datasets.Dataset, selected: datasets.Dataset, trace: Trace
) -> dict[str, Any]:
    summary = nearest_summary(trace)
    quantiles = {q: value for q, value in summary["quantiles"].items() if value is not None}
    return {
        "method": context.config["method"],
        "budget": context.config["budget"],
        "threshold": context.config.get("threshold"),
        "rows_in": len(pool),
        "rows_out": len(selected),
        "seen": summary["num_seen"],
        "rejected": summary["num_rejected"],
        "nearest_similarity": quantiles,
        "columns": _column_means(pool, selected),
        "duplicates": planted_duplicates(traced),
        "score_mean": _score_means(pool, selected),
    }


def _column_means(pool: datasets.Dataset, selected: datasets.Dataset) -> dict[str, dict[str, float]]:
    """Means of the pool's own numeric and yes/no columns over the selected rows and over the whole pool."""
    means = {}
    for name, feature in pool.features.items():
        kind = getattr(feature, "dtype", "")
        if name in _NOT_MEASURED or not (kind == "bool" or kind.startswith(("int", "float"))):
            continue
        values = {"selected": selected[name], "pool": pool[name]}
        if all(value is not None for column in values.values() for value in column):
            means[name] = {where: float(np.mean([float(v) for v in column])) for where, column in values.items()}
    return means


def _score_means(pool: datasets.Dataset, selected: datasets.Dataset) -> dict[str, float] | None:
    if "evol_score" not in pool.column_names:
        return None
    tables = {"selected": selected, "pool": pool}
    known = {where: [value for value in table["evol_score"] if value is not None] for where, table in tables.items()}
    return {where: float(np.mean(values)) for where, values in known.items()} if all(known.values()) else None


def planted_duplicates(traced: datasets.Dataset) -> dict[str, int] | None:
    """How often the walk met a row whose twin it had kept already, and how often it rejected that row.

    Only for pools that know their near-duplicates (`duplicate_of`: the id of the row that a row repeats).
    """
    if "duplicate_of" not in traced.column_names or "evol_score" not in traced.column_names:
        return None
    columns = ("id", "duplicate_of", "evol_score", "selection_rank", "blocked_by")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*(traced[name] for name in columns), strict=True)]
    seen = [row for row in rows if row["selection_rank"] is not None or row["blocked_by"] is not None]
    seen.sort(key=lambda row: (-(row["evol_score"] or 0), row["id"]))  # k-center keeps rows without a score too
    kept_twins: set[str] = set()
    met = rejected = 0
    for row in seen:
        twin = row["duplicate_of"] or row["id"]
        if twin in kept_twins:
            met += 1
            rejected += row["selection_rank"] is None
        if row["selection_rank"] is not None:
            kept_twins.add(twin)
    return {"met": met, "rejected": rejected}
