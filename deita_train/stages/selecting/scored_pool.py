"""The pool with what its scorers and the stage `perplexity` say of each row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column, with_arrow_column
from deita_train.data.texts import TextColumn, places_of
from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates
from deita_train.selection.ranked_by import ranked_by
from deita_train.selection.settings import DIMENSIONS, MEASURED_NUMBERS
from deita_train.stages.context import StageContext

MEASURED_BY = ("perplexity", "direct_score", "instag")
"""The sections whose stages measure a column that a method reads."""
_NUMBER = datasets.Value("float64")


def scored_pool(context: StageContext) -> datasets.Dataset:
    """The pool with the columns that the method reads from other stages, joined by id."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    for dimension in DIMENSIONS:
        if dimension in context.parents:
            pool = _joined(pool, context.parents[dimension], f"{dimension}_scores")
    for section in MEASURED_BY:
        if section in context.parents:
            for column in _measured_columns(context.identity, section):
                pool = _with_measured(pool, context, section, column)
    return pool


def with_evol_score(candidates: Candidates) -> datasets.Dataset:
    """The rows with a column `evol_score`, null for none, where they have both scores."""
    if candidates.settings.ranked_by != "evol" or not candidates.has_scores:
        return candidates.rows
    return _with_numbers(candidates.rows, "evol_score", candidates.scores)


def with_selection_score(candidates: Candidates) -> datasets.Dataset:
    """The rows with a column `selection_score`, the number that the method ranks by, null for none, where it has one.

    Its precision is that of the ranking. What an earlier selection wrote under this name, or of why it could not rank a
    row, is left out.
    """
    numbers, rows = ranked_by(candidates), candidates.rows
    rows = rows.remove_columns([name for name in ("selection_score", "not_ranked") if name in rows.column_names])
    return rows if numbers is None else _with_numbers(rows, "selection_score", numbers)


def with_answer_tokens(candidates: Candidates, counts: np.ndarray) -> datasets.Dataset:
    """The rows with a column `answer_tokens`, null where `counts` `[N]` has nan."""
    return _with_numbers(candidates.rows, "answer_tokens", counts)


def _with_numbers(rows: datasets.Dataset, name: str, numbers: np.ndarray) -> datasets.Dataset:
    """The rows with a column of numbers, null for nan; one of an earlier selection is replaced."""
    return with_arrow_column(rows, name, pa.array(numbers, pa.float64(), mask=np.isnan(numbers)), _NUMBER)


def _measured_columns(identity: Mapping[str, Any], section: str) -> list[str]:
    """The columns that the stage of `section` measured and the selection reads."""
    if section == "instag":
        return [identity["column"]]
    score = identity.get("score")
    weighted = [] if score is None or isinstance(score, str) else score["weights"]
    named = dict.fromkeys([identity.get("column"), *weighted, *identity.get("between", ())])
    return [name for name in named if MEASURED_NUMBERS.get(name) == section]


def _with_measured(pool: datasets.Dataset, context: StageContext, section: str, column: str) -> datasets.Dataset:
    """The pool with a column that the stage of `section` measured."""
    if column in pool.column_names:
        raise UserError(
            f"{context.label}: the pool has a column {column!r}, and {section}: measures one. State select.column: "
            f"{column} to take the pool's, or rename it in the data."
        )
    return _joined(pool, context.parents[section], column)


def _joined(pool: datasets.Dataset, artefact: Path, column: str) -> datasets.Dataset:
    """The pool with a column of another table as it is stored there, joined by id."""
    table = datasets.load_from_disk(str(artefact / "data"))
    ids, there = (TextColumn(arrow_column(rows, "id")) for rows in (pool, table))
    values = arrow_column(table, column)
    if ids != there:
        places = places_of(ids, there)
        assert (places >= 0).all(), f"{(places < 0).sum()} rows of the pool have no entry in {artefact}"
        values = values.take(pa.array(places))
    return with_arrow_column(pool, column, values, table.features[column])
