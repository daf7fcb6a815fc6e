"""Whether the rows of a pool can be ranked by the column that the user names, before anything runs."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from deita_train.selection.candidates import Candidates
from deita_train.selection.pool_columns import number_column
from deita_train.selection.settings import EMBEDDING_CLUSTERS, MEASURED_NUMBERS, SelectionSettings, dimensions_among
from deita_train.selection.strata import strata_of, without_stratum
from deita_train.selection.unrankable import unrankable_by_column
from deita_train.stages.selecting.scored_pool import MEASURED_BY
from deita_train.stages.validation import StageToValidate, drop_lines, read_once

# Strata that a line of `validate` names.
MOST_STRATA = 10


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many rows have a value in the columns that the user names; nothing for what another stage measures."""
    yield from _of_numbers(stage)
    yield from _of_strata(stage)
    if "column" not in stage.identity or any(section in stage.parents for section in MEASURED_BY):
        return
    pool, _ = read_once(stage.parents["pool"])
    candidates = Candidates(pool, SelectionSettings.of_stage(stage.identity))  # without scores, which are not made yet
    drops = Counter(filter(None, unrankable_by_column(candidates)))
    usable = len(pool) - drops.total()
    yield f"{stage.label}: {usable:,} of {len(pool):,} rows can be ranked by column {stage.identity['column']!r}"
    yield from drop_lines(drops, {})


def _of_numbers(stage: StageToValidate) -> Iterator[str]:
    """A line for each of the pool's own columns that a weighted score or `between` names."""
    score, between = stage.identity.get("score", "evol"), stage.identity.get("between", {})
    named = [*({} if isinstance(score, str) else score["weights"]), *between]
    made = {name for name in named if MEASURED_NUMBERS.get(name) in stage.parents}
    made |= set(dimensions_among(named, stage.parents)) | ({"evol"} & set(named))
    own = [name for name in dict.fromkeys(named) if name not in made]
    if not own:
        return
    pool, _ = read_once(stage.parents["pool"])
    for name in own:
        known = np.count_nonzero(~np.isnan(number_column(pool, name)))
        yield f"{stage.label}: {known:,} of {len(pool):,} rows have a number in column {name!r}"


def _of_strata(stage: StageToValidate) -> Iterator[str]:
    """How many rows each stratum of a column has, the largest first."""
    strata = stage.identity.get("strata")
    if strata is None or strata["by"] == EMBEDDING_CLUSTERS:
        return
    pool, _ = read_once(stage.parents["pool"])
    candidates = Candidates(pool, SelectionSettings())  # a method's own could name numbers that are not made yet
    reasons = without_stratum(candidates, strata)
    drops = Counter(filter(None, reasons))
    named = candidates.subset([place for place, reason in enumerate(reasons) if reason is None])
    counts = Counter(sorted(strata_of(named, strata))).most_common()
    shown = ", ".join(f"{name} {number:,}" for name, number in counts[:MOST_STRATA])
    more = f" and {len(counts) - MOST_STRATA:,} more" if len(counts) > MOST_STRATA else ""
    yield f"{stage.label}: {len(counts):,} strata by {strata['by']!r}, rows of each: {shown}{more}"
    yield from drop_lines(drops, {})
