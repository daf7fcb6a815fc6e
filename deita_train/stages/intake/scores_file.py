"""Stage `scores_file`: checks scores made elsewhere and writes them in the format of `score`."""

from array import array
from collections.abc import Iterator
from typing import Any

import datasets
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column, iter_columns, iter_values
from deita_train.data.conversations import user_turns
from deita_train.data.given_columns import GivenScores, given_scores
from deita_train.data.row_table import as_dataset
from deita_train.data.texts import TextColumn
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.validation import StageToValidate, read_once


def run(context: StageContext) -> StageResult:
    """Read, join to the pool's rows by id, write."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    given = read_given_scores(context.runtime["file"], context.identity["dimension"], pool)
    column = f"{context.identity['dimension']}_scores"
    table = pa.table({"id": arrow_column(pool, "id"), column: given.scores})
    as_dataset(table).save_to_disk(str(context.data_dir))
    return StageResult(len(pool), len(pool), {}, _metrics(context.identity["dimension"], given))


def read_given_scores(file: str, dimension: str, pool: datasets.Dataset) -> GivenScores:
    """The scores in `file` of the rows of `pool`, one or None per user turn."""
    num_turns = array("i", (len(user_turns(messages)) for (messages,) in iter_columns(pool, ["messages"])))
    return given_scores(file, f"{dimension}_scores", TextColumn(arrow_column(pool, "id")), num_turns)


def validate(stage: StageToValidate) -> Iterator[str]:
    """That the file has every row of the pool, and how many others."""
    pool, _ = read_once(stage.parents["pool"])
    unused = read_given_scores(stage.runtime["file"], stage.identity["dimension"], pool).num_unused
    yield f"{stage.label}: all {len(pool):,} rows of the pool are in {stage.runtime['file']}, and {unused:,} others"


def _metrics(dimension: str, given: GivenScores) -> dict[str, Any]:
    turns = given.scores.values
    scored = len(turns) - turns.null_count
    return {
        "dimension": dimension,
        "rows": len(given.scores),
        "turns": len(turns),
        "scored": scored,
        "mean": sum(iter_values(turns.drop_null())) / scored if scored else None,
        "rows_of_no_use": given.num_unused,
    }
