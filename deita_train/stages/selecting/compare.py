"""Stage `compare`: selections of one pool by several methods, measured alike.

Its table has a row for each row of the pool, and for each method a column with the row's rank, null where it was not
selected. Its metric `comparison` has the measures, in the form of `selection/measures/compared.py`.
"""

from collections.abc import Sequence

import datasets
import numpy as np
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.row_table import as_dataset
from deita_train.data.texts import TextColumn, places_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.measures.compared import as_json
from deita_train.selection.measures.comparison import compare
from deita_train.selection.settings import DIMENSIONS, SelectionSettings
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.row_limit import Readable, row_limit
from deita_train.stages.selecting.trained_lengths import read_trained_lengths
from deita_train.stages.selecting.whitened import PoolEmbeddings
from deita_train.store.atomic_io import read_json


def run(context: StageContext) -> StageResult:
    """Measure the selections, and write which row each of them keeps."""
    whole = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    pool, embedded = whole, context.parents.get("embed")
    if embedded is not None:  # what the embedder could not read cannot be compared
        table = datasets.load_from_disk(str(embedded / "data"))
        places = places_of(TextColumn(arrow_column(whole, "id")), TextColumn(arrow_column(table, "id")))
        pool = whole.select(np.flatnonzero(places >= 0))
    ids = TextColumn(arrow_column(pool, "id"))
    selections = {method: _selected_ids(context, method, ids) for method in context.identity["methods"]}
    comparison = compare(
        pool,
        None if embedded is None else PoolEmbeddings.of(context).rows(ids),
        selections,
        scores=_scores(context, ids),
        token_column=context.identity["token_column"],
        tokens=_trained_tokens(context, ids),
        mean_of=context.identity.get("mean_of") or (),
        seeds=context.identity.get("seeded") or {},
        max_length=context.identity["max_length"],
        center=context.identity.get("center", False),
        on_step=lambda done, total, what: context.progress.update(done, total, "steps", what),
    )
    _rank_table(ids, selections).save_to_disk(str(context.data_dir))
    drops = {"not_embedded": len(whole) - len(pool)} if len(pool) < len(whole) else {}
    return StageResult(len(whole), len(pool), drops, {"comparison": as_json(comparison)})


def _trained_tokens(context: StageContext, ids: Sequence[str]) -> np.ndarray | None:
    """How many tokens SFT reads of each row, none of a row that it cannot train on; None where they are not counted."""
    if context.identity.get("trained") is None:
        return None
    artefact = context.parents["lengths"]
    readable = Readable(**read_json(artefact / "metrics.json")["readable"])
    lengths = read_trained_lengths(artefact, row_limit(context.identity["trained"], readable).tokens)
    return lengths.tokens_of(ids)


def _selected_ids(context: StageContext, method: str, ids: TextColumn) -> list[str]:
    """The ids of the rows that a method kept, by rank, as far as they are among `ids`."""
    table = datasets.load_from_disk(str(context.parents[f"select.{method}"] / "data"))
    kept = TextColumn(arrow_column(table, "id"))
    return [row_id for row_id, place in zip(kept, places_of(kept, ids), strict=True) if place >= 0]


def _scores(context: StageContext, ids: TextColumn) -> np.ndarray | None:
    """The score of each row of the pool, joined by id; None for a pool without scores."""
    if context.identity["score"] is None:
        return None
    columns = {f"{name}_scores": _turns(context, name, ids) for name in DIMENSIONS if name in context.parents}
    rows = as_dataset(pa.table({"id": ids.column, **columns}))
    how = context.identity.get("score_turns", "sum")
    return Candidates(rows, SelectionSettings(score=context.identity["score"], score_turns=how)).scores


def _turns(context: StageContext, dimension: str, ids: TextColumn) -> pa.ChunkedArray:
    table = datasets.load_from_disk(str(context.parents[dimension] / "data"))
    places = places_of(ids, TextColumn(arrow_column(table, "id")))
    assert (places >= 0).all(), f"a row has no {dimension}"
    return arrow_column(table, f"{dimension}_scores").take(pa.array(places))


def _rank_table(ids: TextColumn, selections: dict[str, list[str]]) -> datasets.Dataset:
    columns = {}
    for method, kept in selections.items():
        ranks = np.full(len(ids), -1, np.int64)
        ranks[places_of(kept, ids)] = np.arange(len(kept))
        columns[method] = pa.array(ranks, pa.int64(), mask=ranks < 0)
    return as_dataset(pa.table({"id": ids.column, **columns}))
