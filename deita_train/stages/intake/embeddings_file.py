"""Stage `embeddings_file`: checks embeddings made elsewhere and writes them in the format of `embed`.

With a pool, those of its rows; without one every row of the table, such as the queries of `target`.
"""

from collections.abc import Iterator

import datasets

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.embeddings import write_embeddings
from deita_train.data.given_columns import given_embeddings, given_ids
from deita_train.data.texts import TextColumn
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.validation import StageToValidate, read_once


def run(context: StageContext) -> StageResult:
    """Read, join to the pool's rows by id, write."""
    file = context.runtime["file"]
    if "pool" in context.parents:
        ids = TextColumn(arrow_column(datasets.load_from_disk(str(context.parents["pool"] / "data")), "id"))
    else:
        ids = given_ids(file)
    given = given_embeddings(file, ids)
    rows, width = given.matrix.shape
    write_embeddings(context.data_dir, ids.column, given.matrix)
    return StageResult(rows, rows, {}, {"rows": rows, "dimensions": width, "rows_of_no_use": given.num_unused})


def validate(stage: StageToValidate) -> Iterator[str]:
    """That the file has every row of the pool, and how many others; without a pool how many rows it has."""
    file = stage.runtime["file"]
    if "pool" not in stage.parents:
        yield f"{stage.label}: {len(given_embeddings(file, given_ids(file)).matrix):,} vectors in {file}"
        return
    pool, _ = read_once(stage.parents["pool"])
    unused = given_embeddings(file, TextColumn(arrow_column(pool, "id"))).num_unused
    yield f"{stage.label}: all {len(pool):,} rows of the pool are in {file}, and {unused:,} others"
