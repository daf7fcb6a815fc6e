"""The trace of a selection as columns of a dataset, the rows that it keeps, and its numbers for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:  # it imports torch, which printing a comparison does not need
    from deita_train.selection.repr_filter.repr_filter import Trace

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def attach_trace(dataset: datasets.Dataset, trace: Trace, ids: Sequence[str]) -> datasets.Dataset:
    """Add the decisions as columns; rows stay in their order.

    The columns are `selection_rank` (int64, null if not selected), `nearest_similarity` (float32, null where the trace
    has nan) and `blocked_by` (id of the blocking row, or null).

    Args:
        dataset: N rows with `id`.
        trace: of these rows.
        ids: their ids, in the order of the trace.
    """
    assert list(dataset["id"]) == list(ids), "the trace is not in the order of the dataset's rows"

    def trace_of(batch_ids: Sequence[str], indices: Sequence[int]) -> dict[str, list[Any]]:
        ranks, nearest, blockers = trace.selection_rank, trace.nearest_similarity, trace.blocked_by
        return {
            "selection_rank": [int(ranks[i]) if ranks[i] >= 0 else None for i in indices],
            "nearest_similarity": [None if np.isnan(nearest[i]) else float(nearest[i]) for i in indices],
            "blocked_by": [ids[int(blockers[i])] if blockers[i] >= 0 else None for i in indices],
        }

    features = dataset.features.copy()
    features["selection_rank"] = datasets.Value("int64")
    features["nearest_similarity"] = datasets.Value("float32")
    features["blocked_by"] = datasets.Value("string")
    return dataset.map(
        trace_of,
        with_indices=True,
        batched=True,
        input_columns=["id"],
        features=features,
        load_from_cache_file=False,
        desc="attaching the selection",
    )


def with_reasons(traced: datasets.Dataset, reasons: Sequence[str | None]) -> datasets.Dataset:
    """Add the column `not_ranked`: why the method could not rank a row, null for one that it could."""
    if "not_ranked" in traced.column_names:  # of an earlier selection
        traced = traced.remove_columns("not_ranked")
    return traced.add_column("not_ranked", list(reasons), feature=datasets.Value("string"))


def trace_in_columns(table: pa.Table, ids: Sequence[str]) -> Trace:
    """The trace of the rows that could be ranked, from the columns of :func:`attach_trace` and `with_reasons`.

    Args:
        table: the pool's rows in any order, N of them ranked.
        ids: the N ids in the order of the trace that is returned.
    """
    from deita_train.selection.repr_filter.repr_filter import Trace

    table = table.filter(pc.is_null(table["not_ranked"]))
    places = pc.index_in(pa.array(ids), value_set=table["id"].combine_chunks())
    assert places.null_count == 0 and len(table) == len(ids), "the trace is of other rows"
    rows = table.take(places)
    blockers = pc.index_in(rows["blocked_by"].combine_chunks(), value_set=pa.array(ids, pa.string()))
    return Trace(
        selection_rank=rows["selection_rank"].fill_null(-1).to_numpy().astype(np.int64),
        nearest_similarity=rows["nearest_similarity"].fill_null(float("nan")).to_numpy().astype(np.float32),
        blocked_by=blockers.fill_null(-1).to_numpy().astype(np.int64),
    )


def keep_selected(dataset: datasets.Dataset, budget: int | None) -> datasets.Dataset:
    """The rows with `selection_rank` below `budget` (all that have a rank if None), in rank order."""

    def is_selected(rank: int | None) -> bool:
        return rank is not None and (budget is None or rank < budget)

    kept = dataset.filter(is_selected, input_columns=["selection_rank"], load_from_cache_file=False)
    return kept.sort("selection_rank", load_from_cache_file=False)


def nearest_summary(trace: Trace) -> dict[str, Any]:
    """Counts, and quantiles of the similarity to the nearest row kept before.

    Returns:
        `num_seen`, `num_kept`, `num_rejected` (rows), and `quantiles`: from "0" to "1", linearly interpolated
        over the rows that have a nearest kept row; null if there are none.
    """
    nearest = trace.nearest_similarity[~np.isnan(trace.nearest_similarity)].astype(np.float64)
    num_kept = int((trace.selection_rank >= 0).sum())
    num_rejected = int((trace.blocked_by >= 0).sum())
    values = np.quantile(nearest, QUANTILES).tolist() if len(nearest) else [None] * len(QUANTILES)
    return {
        "num_seen": num_kept + num_rejected,
        "num_kept": num_kept,
        "num_rejected": num_rejected,
        "quantiles": dict(zip((f"{q:g}" for q in QUANTILES), values, strict=True)),
    }
