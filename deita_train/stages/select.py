"""Stage `select`: ranking and diversity filter as datasets map and filter, with the trace of every decision."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from deita_train.errors import UserError
from deita_train.scoring.evol_score import evol_score, sum_scores
from deita_train.selection.methods import attach_trace, keep_selected, nearest_summary, select_rows
from deita_train.selection.repr_filter import Trace
from deita_train.stages.context import StageContext, StageResult

DIMENSIONS = ("complexity", "quality")
# Columns of the pool that are not measured values.
_NOT_MEASURED = {"id", "messages", "source", "selection_rank", "nearest_similarity", "evol_score"}


def run(context: StageContext) -> StageResult:
    """Join by id, walk, attach the trace, keep the selected rows in rank order."""
    datasets.disable_caching()  # a map over a published table would leave its cache beside it
    pool = _with_scores(context)
    rows, drops = _rankable(pool, context)
    trace = select_rows(
        context.config["method"],
        rows,
        budget=context.config["budget"],
        embeddings=_embeddings(context, rows) if "embed" in context.parents else None,
        seed=context.config.get("seed"),
        threshold=context.config.get("threshold", 1.0),
        center=context.config.get("center", False),
        score=context.config.get("score", "evol"),
    )
    _check_budget(context, trace, len(rows))
    traced = attach_trace(rows, trace, list(rows["id"]))
    selected = keep_selected(traced, context.config["budget"])
    selected.save_to_disk(str(context.data_dir))
    _trace_table(traced).save_to_disk(str(context.work_dir / "trace"))
    drops["not_selected"] = len(rows) - len(selected)
    metrics = _metrics(context, pool, traced, selected, trace)
    return StageResult(len(pool), len(selected), {k: v for k, v in drops.items() if v}, metrics)


def _with_scores(context: StageContext) -> datasets.Dataset:
    """The pool with the scores of every scorer that the method reads, joined by id, and the evol score."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    for dimension in DIMENSIONS:
        if dimension not in context.parents:
            continue
        column = f"{dimension}_scores"
        scored = datasets.load_from_disk(str(context.parents[dimension] / "data"))
        by_id = dict(zip(scored["id"], scored[column], strict=True))
        missing = [row_id for row_id in pool["id"] if row_id not in by_id]
        assert not missing, f"{len(missing)} rows of the pool have no entry in {context.parents[dimension]}"
        values = [by_id[row_id] for row_id in pool["id"]]
        pool = pool.add_column(column, values, feature=datasets.List(datasets.Value("float32")))
    if all(dimension in context.parents for dimension in DIMENSIONS):
        pool = pool.map(
            lambda complexity, quality: {"evol_score": evol_score(complexity, quality)},
            input_columns=["complexity_scores", "quality_scores"],
            features=datasets.Features({**pool.features, "evol_score": datasets.Value("float64")}),
            load_from_cache_file=False,
        )
    return pool


def _rankable(pool: datasets.Dataset, context: StageContext) -> tuple[datasets.Dataset, dict[str, int]]:
    """The rows that have a score to rank by, and how many have none."""
    score = context.config.get("score")
    if score is None:
        return pool, {}
    if score == "evol":
        ranked = [value is not None for value in pool["evol_score"]]
    else:
        ranked = [sum_scores(turns) is not None for turns in pool[f"{score}_scores"]]
    kept = [index for index, has_score in enumerate(ranked) if has_score]
    if not kept:
        raise UserError(f"{context.label}: no row of the pool has a score to rank by.")
    dropped = len(pool) - len(kept)
    return (pool.select(kept), {"no_scored_turn": dropped}) if dropped else (pool, {})


def _embeddings(context: StageContext, rows: datasets.Dataset) -> np.ndarray:
    """Embeddings float32 [N, D] in the order of `rows`, joined by id."""
    embedded = datasets.load_from_disk(str(context.parents["embed"] / "data"))
    column = embedded.data.column("embedding")
    width = column.type.list_size
    matrix = np.concatenate([chunk.flatten().to_numpy().reshape(-1, width) for chunk in column.chunks])
    place = {row_id: index for index, row_id in enumerate(embedded["id"])}
    wanted: Sequence[int] = [place[row_id] for row_id in rows["id"]]
    return matrix if list(wanted) == list(range(len(matrix))) else matrix[wanted]


def _check_budget(context: StageContext, trace: Trace, num_rows: int) -> None:
    """Less than half the budget is an error unless the recipe allows it: the threshold was not meant so."""
    budget, summary = context.config["budget"], nearest_summary(trace)
    kept = summary["num_kept"]
    if budget is None or kept * 2 >= budget or context.settings["allow_fewer"]:
        return
    quantiles = ", ".join(f"{q}: {v:.3f}" for q, v in summary["quantiles"].items() if v is not None)
    raise UserError(
        f"{context.label}: only {kept} of the budget of {budget} rows were found among {num_rows}. "
        f"Similarity to the nearest kept row by quantile: {quantiles or 'none was computed'}. Raise select.threshold, "
        "lower select.budget, set embedding.center: true when all similarities are close to 1, or allow_fewer: true."
    )


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
        "budget_met": context.config["budget"] is None or len(selected) == context.config["budget"],
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
    values = [value for value in pool["evol_score"] if value is not None]
    return {"selected": float(np.mean(list(selected["evol_score"]))), "pool": float(np.mean(values))}


def planted_duplicates(traced: datasets.Dataset) -> dict[str, int] | None:
    """How often the walk met a row whose twin it had kept already, and how often it rejected that row.

    Only for pools that know their near-duplicates (`duplicate_of`: the id of the row that a row repeats).
    """
    if "duplicate_of" not in traced.column_names or "evol_score" not in traced.column_names:
        return None
    columns = ("id", "duplicate_of", "evol_score", "selection_rank", "blocked_by")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*(traced[name] for name in columns), strict=True)]
    seen = [row for row in rows if row["selection_rank"] is not None or row["blocked_by"] is not None]
    seen.sort(key=lambda row: (-row["evol_score"], row["id"]))
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
