"""The pool with what its scorers and the stage `perplexity` say of each row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates
from deita_train.selection.ranked_by import ranked_by
from deita_train.selection.settings import DIMENSIONS, MEASURED_NUMBERS
from deita_train.stages.context import StageContext

MEASURED_BY = ("perplexity", "direct_score", "instag")
"""The sections whose stages measure a column that a method reads."""


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


def with_answer_tokens(candidates: Candidates, counts: Mapping[str, int]) -> datasets.Dataset:
    """The rows with a column `answer_tokens`, null for a row whose tokens were not counted."""
    numbers = [float(counts.get(row_id, np.nan)) for row_id in candidates.ids]
    return _with_numbers(candidates.rows, "answer_tokens", np.array(numbers))


def _with_numbers(rows: datasets.Dataset, name: str, numbers: np.ndarray) -> datasets.Dataset:
    if name in rows.column_names:  # of an earlier selection
        rows = rows.remove_columns(name)
    values = [None if np.isnan(number) else number for number in numbers.tolist()]
    return rows.add_column(name, values, feature=datasets.Value("float64"))


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
    by_id = dict(zip(table["id"], table[column], strict=True))
    missing = [row_id for row_id in pool["id"] if row_id not in by_id]
    assert not missing, f"{len(missing)} rows of the pool have no entry in {artefact}"
    return pool.add_column(column, [by_id[row_id] for row_id in pool["id"]], feature=table.features[column])
