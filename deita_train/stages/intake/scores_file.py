"""Stage `scores_file`: checks scores made elsewhere and writes them in the format of `score`."""

from collections.abc import Iterator
from typing import Any

import datasets

from deita_train.data.conversations import user_turns
from deita_train.data.given_columns import GivenScores, given_scores
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.validation import StageToValidate, read_once


def run(context: StageContext) -> StageResult:
    """Read, join to the pool's rows by id, write."""
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    given = read_given_scores(context.runtime["file"], context.identity["dimension"], pool)
    column = f"{context.identity['dimension']}_scores"
    scores = datasets.List(datasets.Value("float64"))
    features = datasets.Features({"id": datasets.Value("string"), column: scores})
    values = {"id": list(pool["id"]), column: given.scores}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(str(context.data_dir))
    return StageResult(len(pool), len(pool), {}, _metrics(context.identity["dimension"], given))


def read_given_scores(file: str, dimension: str, pool: datasets.Dataset) -> GivenScores:
    """The scores in `file` of the rows of `pool`, one or None per user turn."""
    num_turns = [len(user_turns(messages)) for messages in pool["messages"]]
    return given_scores(file, f"{dimension}_scores", list(pool["id"]), num_turns)


def validate(stage: StageToValidate) -> Iterator[str]:
    """That the file has every row of the pool, and how many others."""
    pool, _ = read_once(stage.parents["pool"])
    unused = read_given_scores(stage.runtime["file"], stage.identity["dimension"], pool).num_unused
    yield f"{stage.label}: all {len(pool):,} rows of the pool are in {stage.runtime['file']}, and {unused:,} others"


def _metrics(dimension: str, given: GivenScores) -> dict[str, Any]:
    turns = [score for row in given.scores for score in row]
    known = [score for score in turns if score is not None]
    return {
        "dimension": dimension,
        "rows": len(given.scores),
        "turns": len(turns),
        "scored": len(known),
        "mean": sum(known) / len(known) if known else None,
        "rows_of_no_use": given.num_unused,
    }
