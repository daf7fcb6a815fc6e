"""A pool with the decision of a selection about each of its rows."""

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.row_table import as_dataset

# The columns that a selection reads and writes; every other column is the pool's own.
_TRACED = (
    "complexity_scores",
    "quality_scores",
    "evol_score",
    "selection_score",
    "answer_tokens",
    "selection_rank",
    "nearest_similarity",
    "blocked_by",
    "not_ranked",
)
_SIZES = ("num_turns", "num_chars")


def traced_pool(
    pool: datasets.Dataset, trace: datasets.Dataset, contaminated: datasets.Dataset | None = None
) -> datasets.Dataset:
    """Every row of `pool` in its order, with its scores, what else was measured, and its decision, joined by `id`.

    Args:
        pool: what was selected from.
        trace: of the selection.
        contaminated: the table of a stage `contamination` over the pool, whose rows with hits were removed first. They
            have the question that they repeat (`contaminated_by`), and the text that they share (`contaminated_span`).
    """
    rows, traced = _table(pool), _table(trace)
    places = pc.index_in(rows["id"], value_set=traced["id"].combine_chunks())
    measured = [name for name in traced.column_names if name not in (*rows.column_names, *_TRACED, *_SIZES)]
    for name in (*measured, *_TRACED):
        of_earlier = name in traced.column_names or name == "selection_score"
        if name in rows.column_names and of_earlier:  # of an earlier selection
            rows = rows.drop_columns([name])
        if name in traced.column_names:
            rows = rows.append_column(name, traced[name].take(places))
    if contaminated is not None:
        rows = _with_contamination(rows, contaminated)
    return as_dataset(rows)


def _with_contamination(rows: pa.Table, contaminated: datasets.Dataset) -> pa.Table:
    """The rows with the longest hit of each that was removed, null for the others."""
    longest = {
        row_id: hits[0] if hits else None for row_id, hits in zip(contaminated["id"], contaminated["hits"], strict=True)
    }
    hits = [longest[row_id] for row_id in rows["id"].to_pylist()]
    columns = {
        "contaminated_by": [None if hit is None else f"{hit['benchmark']}/{hit['question']}" for hit in hits],
        "contaminated_span": [None if hit is None else hit["span"] for hit in hits],
    }
    for name, values in columns.items():
        if name in rows.column_names:  # of an earlier selection
            rows = rows.drop_columns([name])
        rows = rows.append_column(name, pa.array(values, pa.string()))
    return rows


def _table(dataset: datasets.Dataset) -> pa.Table:
    """All rows in Arrow, without the metadata that describes the columns, which would be wrong once they change."""
    return dataset.with_format("arrow")[:].replace_schema_metadata(None)
