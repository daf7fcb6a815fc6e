"""Stage `embeddings_file`: checks embeddings made elsewhere and writes them in the format of `embed`."""

from collections.abc import Iterator

import datasets

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.embeddings import write_embeddings
from deita_train.data.given_columns import GivenEmbeddings, given_embeddings
from deita_train.data.texts import TextColumn
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.validation import StageToValidate, read_once


def run(context: StageContext) -> StageResult:
    """Read, join to the pool's rows by id, write."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    given = read_given_embeddings(context.runtime["file"], pool)
    rows, width = given.matrix.shape
    write_embeddings(context.data_dir, arrow_column(pool, "id"), given.matrix)
    return StageResult(rows, rows, {}, {"rows": rows, "dimensions": width, "rows_of_no_use": given.num_unused})


def read_given_embeddings(file: str, pool: datasets.Dataset) -> GivenEmbeddings:
    """The embeddings in `file` of the rows of `pool`."""
    return given_embeddings(file, TextColumn(arrow_column(pool, "id")))


def validate(stage: StageToValidate) -> Iterator[str]:
    """That the file has every row of the pool, and how many others."""
    pool, _ = read_once(stage.parents["pool"])
    unused = read_given_embeddings(stage.runtime["file"], pool).num_unused
    yield f"{stage.label}: all {len(pool):,} rows of the pool are in {stage.runtime['file']}, and {unused:,} others"
