"""The number by which a method ranks each row, for the files that a selection writes."""

import numpy as np

from deita_train.selection.baselines.ranking import answer_tokens, characters
from deita_train.selection.candidates import Candidates
from deita_train.selection.settings import METHODS

# The methods that rank by characters, and whose.
_LENGTHS = {"longest_response": "assistant", "longest_instruction": "user"}


def ranked_by(candidates: Candidates) -> np.ndarray | None:
    """`[N]` float64, nan for a row without a number; None for a method whose walk follows no number of a row's own.

    Rows that cannot be ranked have their number too, such as an IFD of 1 or more.
    """
    settings = candidates.settings
    by_score = METHODS[settings.method].scores == "required" and settings.rules.column is None
    if settings.method == "longest_response" and settings.unit == "tokens":
        return answer_tokens(candidates)
    if settings.method in _LENGTHS:
        return characters(candidates, _LENGTHS[settings.method])
    if settings.rules.column in ("numbers", "numbers_below_one"):
        return candidates.numbers
    return candidates.scores if by_score else None
