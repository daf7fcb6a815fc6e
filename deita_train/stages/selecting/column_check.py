"""Whether the rows of a pool can be ranked by the column that the user names, before anything runs."""

from collections import Counter
from collections.abc import Iterator

from deita_train.selection.candidates import Candidates
from deita_train.selection.settings import SelectionSettings
from deita_train.selection.unrankable import unrankable_by_column
from deita_train.stages.selecting.scored_pool import MEASURED_BY
from deita_train.stages.validation import StageToValidate, drop_lines, read_once


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many rows have a value in the column; nothing for a column that another stage measures."""
    if "column" not in stage.identity or any(section in stage.parents for section in MEASURED_BY):
        return
    pool, _ = read_once(stage.parents["pool"])
    candidates = Candidates(pool, SelectionSettings.of_stage(stage.identity))  # without scores, which are not made yet
    drops = Counter(filter(None, unrankable_by_column(candidates)))
    usable = len(pool) - drops.total()
    yield f"{stage.label}: {usable:,} of {len(pool):,} rows can be ranked by column {stage.identity['column']!r}"
    yield from drop_lines(drops, {})
