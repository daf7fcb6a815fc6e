"""What a selection is like, for its report."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np

from deita_train.data.arrow_columns import arrow_column, numbers_in
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.trace.trace_columns import nearest_summary

# Columns that are not measurements of a row.
_NOT_MEASURED = {"id", "messages", "source", "selection_rank", "nearest_similarity", "evol_score", "selection_score"}


def selection_metrics(
    identity: Mapping[str, Any],
    pool: datasets.Dataset,
    selected: datasets.Dataset,
    trace: Trace,
) -> dict[str, Any]:
    """Counts, similarities and means of a selection.

    Args:
        identity: of the stage.
        pool: every row.
        selected: the rows that were kept.
        trace: the decisions in the walk over the rows that could be ranked.
    """
    summary = nearest_summary(trace)
    return {
        "method": identity["method"],
        "budget": identity["budget"],
        "threshold": identity.get("threshold"),
        "rows_in": len(pool),
        "rows_out": len(selected),
        "seen": summary["num_seen"],
        "rejected": summary["num_rejected"],
        "nearest_similarity": {q: value for q, value in summary["quantiles"].items() if value is not None},
        "columns": _column_means(pool, selected),
        "score_mean": _score_means(pool, selected),
    }


def _column_means(pool: datasets.Dataset, selected: datasets.Dataset) -> dict[str, dict[str, float]]:
    """Means of the pool's own numeric and yes/no columns over the selected rows and over the whole pool.

    They are over the rows that have a value, where either table has any; `lacking` counts the pool's other rows.
    """
    means = {}
    for name, feature in pool.features.items():
        kind = getattr(feature, "dtype", "")
        if name in _NOT_MEASURED or not (kind == "bool" or kind.startswith(("int", "float"))):
            continue
        values = {"selected": arrow_column(selected, name), "pool": arrow_column(pool, name)}
        lacking = values["pool"].null_count
        known = {where: column.drop_null() if column.null_count else column for where, column in values.items()}
        if all(map(len, known.values())):
            means[name] = {where: float(np.mean(numbers_in(column))) for where, column in known.items()}
            means[name] |= {"lacking": lacking} if lacking else {}
    return means


def _score_means(pool: datasets.Dataset, selected: datasets.Dataset) -> dict[str, float] | None:
    if "evol_score" not in pool.column_names:
        return None
    tables = {"selected": selected, "pool": pool}
    known = {where: arrow_column(table, "evol_score").drop_null().to_numpy() for where, table in tables.items()}
    return {where: float(np.mean(values)) for where, values in known.items()} if all(map(len, known.values())) else None
