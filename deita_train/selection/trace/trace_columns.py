"""The trace of a selection as columns of a dataset, the rows that it keeps, and its numbers for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.arrow_columns import arrow_column, with_arrow_column
from deita_train.data.texts import TextColumn, as_column, places_of

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
    column = as_column(ids)
    assert TextColumn(arrow_column(dataset, "id")) == column, "the trace is not in the order of the dataset's rows"
    ranks, nearest, blockers = trace.selection_rank, trace.nearest_similarity, trace.blocked_by
    blocked_by = column.column.take(pa.array(blockers, pa.int64(), mask=blockers < 0))
    traced = with_arrow_column(
        dataset, "selection_rank", pa.array(ranks, pa.int64(), mask=ranks < 0), datasets.Value("int64")
    )
    traced = with_arrow_column(
        traced, "nearest_similarity", pa.array(nearest, pa.float32(), mask=np.isnan(nearest)), datasets.Value("float32")
    )
    return with_arrow_column(traced, "blocked_by", blocked_by, datasets.Value("string"))


def with_reasons(traced: datasets.Dataset, reasons: Sequence[str | None]) -> datasets.Dataset:
    """Add the column `not_ranked`: why the method could not rank a row, null for one that it could."""
    return with_arrow_column(traced, "not_ranked", pa.array(reasons, pa.string()), datasets.Value("string"))


def trace_in_columns(table: pa.Table, ids: Sequence[str]) -> Trace:
    """The trace of the rows that could be ranked, from the columns of :func:`attach_trace` and `with_reasons`.

    Args:
        table: the pool's rows in any order, N of them ranked.
        ids: the N ids in the order of the trace that is returned.
    """
    from deita_train.selection.repr_filter.repr_filter import Trace

    table = table.filter(pc.is_null(table["not_ranked"]))
    places = places_of(ids, TextColumn(table["id"]))
    assert (places >= 0).all() and len(table) == len(ids), "the trace is of other rows"
    rows = table.select(["selection_rank", "nearest_similarity", "blocked_by"]).take(pa.array(places))
    blocked = np.flatnonzero(rows["blocked_by"].is_valid().to_numpy())
    blockers = np.full(len(ids), -1, np.int64)
    blockers[blocked] = places_of(TextColumn(rows["blocked_by"].drop_null()), ids)
    return Trace(
        selection_rank=rows["selection_rank"].fill_null(-1).to_numpy().astype(np.int64),
        nearest_similarity=rows["nearest_similarity"].fill_null(float("nan")).to_numpy().astype(np.float32),
        blocked_by=blockers,
    )


def keep_selected(dataset: datasets.Dataset, budget: int | None) -> datasets.Dataset:
    """The rows with `selection_rank` below `budget` (all that have a rank if None), in rank order."""
    ranks = pc.fill_null(arrow_column(dataset, "selection_rank"), -1).to_numpy()
    kept = np.flatnonzero((ranks >= 0) & (ranks < (len(ranks) if budget is None else budget)))
    return dataset.select(kept[np.argsort(ranks[kept])])


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
