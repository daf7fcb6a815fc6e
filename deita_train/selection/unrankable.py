"""Which rows a method cannot rank, and why."""

from collections.abc import Mapping, Sequence

import numpy as np

from deita_train.selection.candidates import Candidates
from deita_train.selection.weighting import outside

# For each row the reason under which it is counted, a key of IN_WORDS, or None for a row that can be ranked.
Reasons = list[str | None]

CONTAMINATED = "contaminated"
# The reasons, as what is wrong with rows.
IN_WORDS = {
    CONTAMINATED: "repeat a question of a benchmark",
    "no_scored_turn": "have no score to be ranked by",
    "no_value": "have no number in the column",
    "no_weighted_number": "lack a number that the score weighs",
    "no_limited_number": "have no number in a column that select.between limits",
    "no_stratum": "have no value in the column of select.strata",
    "outside_limits": "lie outside the limits of select.between",
    "ifd_not_below_one": "have an IFD of 1 or more",
    "no_tags": "have no tags in the column",
    "not_embedded": "have no embedding, because the chat template cannot write them",
    "not_trainable": "cannot be trained on, because the chat template cannot write them",
}


def unrankable_rows(candidates: Candidates) -> Reasons:
    """Why the method cannot rank each row: for its column, else for its score.

    Raises:
        UserError: a column that the method reads is missing or holds something else.
    """
    by_column = unrankable_by_column(candidates)
    if candidates.settings.rules.scores != "required":
        return by_column
    unscored = np.isnan(candidates.scores)
    lacking = "no_scored_turn" if isinstance(candidates.settings.ranked_by, str) else "no_weighted_number"
    return [
        reason or (lacking if is_unscored else None) for reason, is_unscored in zip(by_column, unscored, strict=True)
    ]


def outside_limits(candidates: Candidates, between: Mapping[str, Sequence[float]]) -> Reasons:
    """Why each row is left out by limits: quantiles, by the name of a number, over all rows that have the number.

    Raises:
        UserError: a column is missing or holds something else.
    """
    reasons: Reasons = [None] * len(candidates.ids)
    for name, limits in between.items():
        numbers = candidates.numbers_of(name)
        for place in np.flatnonzero(outside(numbers, limits)):
            reasons[place] = reasons[place] or ("no_limited_number" if np.isnan(numbers[place]) else "outside_limits")
    return reasons


def unrankable_by_column(candidates: Candidates) -> Reasons:
    """Why the method cannot rank each row for what it has in the column that the user names.

    Raises:
        UserError: the column is missing or holds something else.
    """
    column = candidates.settings.rules.column
    if column is None:
        return [None] * len(candidates.ids)
    if column == "tags":
        return [None if tags else "no_tags" for tags in candidates.tags]
    limit = 1.0 if column == "numbers_below_one" else np.inf
    return [_reason(number, limit) for number in candidates.numbers]


def _reason(number: float, limit: float) -> str | None:
    if np.isnan(number):
        return "no_value"
    return None if number < limit else "ifd_not_below_one"
