"""Stage `compare`: selections of one pool by several methods, measured alike.

Its table has a row for each row of the pool, and for each method a column with the row's rank, null where it was not
selected. Its metric `comparison` has the measures, in the form of `selection/measures/compared.py`.
"""

from collections.abc import Sequence

import datasets
import numpy as np

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
        known = set(datasets.load_from_disk(str(embedded / "data"))["id"])
        pool = whole.select([place for place, row_id in enumerate(whole["id"]) if row_id in known])
    ids = list(pool["id"])
    there = set(ids)
    selections = {
        method: [row_id for row_id in _selected_ids(context, method) if row_id in there]
        for method in context.identity["methods"]
    }
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
    return np.array([lengths.tokens.get(row_id, 0) for row_id in ids], dtype=np.int64)


def _selected_ids(context: StageContext, method: str) -> list[str]:
    """The ids of the rows that a method kept, by rank."""
    return list(datasets.load_from_disk(str(context.parents[f"select.{method}"] / "data"))["id"])


def _scores(context: StageContext, ids: Sequence[str]) -> np.ndarray | None:
    """The score of each row of the pool, joined by id; None for a pool without scores."""
    if context.identity["score"] is None:
        return None
    columns = {f"{name}_scores": _turns(context, name, ids) for name in DIMENSIONS if name in context.parents}
    rows = datasets.Dataset.from_dict({"id": ids, **columns})
    how = context.identity.get("score_turns", "sum")
    return Candidates(rows, SelectionSettings(score=context.identity["score"], score_turns=how)).scores


def _turns(context: StageContext, dimension: str, ids: Sequence[str]) -> list[list[float | None]]:
    table = datasets.load_from_disk(str(context.parents[dimension] / "data"))
    by_id = dict(zip(table["id"], table[f"{dimension}_scores"], strict=True))
    return [by_id[row_id] for row_id in ids]


def _rank_table(ids: Sequence[str], selections: dict[str, list[str]]) -> datasets.Dataset:
    ranks = {method: {row_id: rank for rank, row_id in enumerate(kept)} for method, kept in selections.items()}
    columns = {method: [of_method.get(row_id) for row_id in ids] for method, of_method in ranks.items()}
    features = {"id": datasets.Value("string"), **{method: datasets.Value("int64") for method in columns}}
    return datasets.Dataset.from_dict({"id": list(ids), **columns}, features=datasets.Features(features))
