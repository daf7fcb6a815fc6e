"""A pool with the decision of a selection about each of its rows."""

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.row_table import as_dataset

# The columns that a selection reads and writes; every other column is the pool's own.
_TRACED = (
    "complexity_scores", "quality_scores", "evol_score", "weighted_score", "answer_tokens", "selection_rank",
    "nearest_similarity", "blocked_by",
)  # fmt: skip


def traced_pool(pool: datasets.Dataset, trace: datasets.Dataset) -> datasets.Dataset:
    """Every row of `pool` in its order, with its scores and decision from `trace`, joined by `id`.

    A row that the method could not rank is not in the trace: its columns are null.
    """
    rows, traced = _table(pool), _table(trace)
    places = pc.index_in(rows["id"], value_set=traced["id"].combine_chunks())
    for name in _TRACED:
        if name in traced.column_names:
            if name in rows.column_names:  # of an earlier selection
                rows = rows.drop_columns([name])
            rows = rows.append_column(name, traced[name].take(places))
    return as_dataset(rows)


def _table(dataset: datasets.Dataset) -> pa.Table:
    """All rows in Arrow, without the metadata that describes the columns, which would be wrong once they change."""
    return dataset.with_format("arrow")[:].replace_schema_metadata(None)
