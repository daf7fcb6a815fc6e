"""Which rows a method cannot rank, and why: for each row the reason under which it is counted, or None."""

from collections.abc import Callable

import numpy as np

from deita_train.selection.candidates import Candidates

Reasons = list[str | None]
Unusable = Callable[[Candidates], Reasons]

# The reasons, as what is wrong with rows.
IN_WORDS = {
    "no_scored_turn": "have no score to be ranked by",
    "no_value": "have no number in the column",
    "ifd_not_below_one": "have an IFD of 1 or more",
    "no_tags": "have no tags in the column",
}


def nothing(candidates: Candidates) -> Reasons:
    """Every row can be ranked."""
    return [None] * len(candidates.ids)


def no_evol_score(candidates: Candidates) -> Reasons:
    """Rows without a turn that has both scores."""
    return _where(np.isnan(candidates.scores_by("evol")), "no_scored_turn")


def no_complexity(candidates: Candidates) -> Reasons:
    """Rows without a turn that has a complexity score."""
    return _where(np.isnan(candidates.scores_by("complexity")), "no_scored_turn")


def no_quality(candidates: Candidates) -> Reasons:
    """Rows without a turn that has a quality score."""
    return _where(np.isnan(candidates.scores_by("quality")), "no_scored_turn")


def no_score(candidates: Candidates) -> Reasons:
    """Rows without a scored turn, by the score that the selection names."""
    return _where(np.isnan(candidates.scores), "no_scored_turn")


def no_weighed_score(candidates: Candidates) -> Reasons:
    """The same where the score has a weight, else none."""
    return no_score(candidates) if candidates.quality_weight else nothing(candidates)


def no_value(candidates: Candidates) -> Reasons:
    """Rows without a finite number in the column."""
    return _where(np.isnan(candidates.numbers), "no_value")


def no_ifd_below_one(candidates: Candidates) -> Reasons:
    """Rows without a number in the column, and those with 1 or more."""
    too_high = _where(candidates.numbers >= 1, "ifd_not_below_one")
    return [missing or high for missing, high in zip(no_value(candidates), too_high, strict=True)]


def no_tags(candidates: Candidates) -> Reasons:
    """Rows without a tag in the column."""
    return ["no_tags" if not tags else None for tags in candidates.tags]


def no_tags_or_score(candidates: Candidates) -> Reasons:
    """Rows without a tag in the column, and those without a scored turn."""
    return [tags or score for tags, score in zip(no_tags(candidates), no_score(candidates), strict=True)]


def _where(is_so: np.ndarray, reason: str) -> Reasons:
    return [reason if so else None for so in is_so]
