"""What a selection is like, for its report."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np

from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.trace.trace_columns import nearest_summary

# Columns that are not measurements of a row.
_NOT_MEASURED = {"id", "messages", "source", "selection_rank", "nearest_similarity", "evol_score"}


def selection_metrics(
    config: Mapping[str, Any],
    pool: datasets.Dataset,
    traced: datasets.Dataset,
    selected: datasets.Dataset,
    trace: Trace,
) -> dict[str, Any]:
    """Counts, similarities and means of a selection.

    Args:
        config: of the stage.
        pool: every row.
        traced: the rows that could be ranked, with the columns of the trace.
        selected: the rows that were kept.
        trace: the decisions in the order of `traced`.
    """
    summary = nearest_summary(trace)
    return {
        "method": config["method"],
        "budget": config["budget"],
        "threshold": config.get("threshold"),
        "rows_in": len(pool),
        "rows_out": len(selected),
        "seen": summary["num_seen"],
        "rejected": summary["num_rejected"],
        "nearest_similarity": {q: value for q, value in summary["quantiles"].items() if value is not None},
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
    """How often the walk met a row whose twin was kept already, and how often it rejected that row.

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
