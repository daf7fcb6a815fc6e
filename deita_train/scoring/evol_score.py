"""The evol score of a conversation: complexity times quality, summed over its user turns (paper 2.5)."""

import math
from collections.abc import Sequence
from typing import Literal

OverTurns = Literal["sum", "mean"]


def evol_score(
    complexity: Sequence[float | None],
    quality: Sequence[float | None],
    how: OverTurns = "sum",
    counted: Sequence[bool] | None = None,
) -> float | None:
    """Sum of complexity * quality over the user turns of one conversation (arXiv 2312.15685, sections 2.2 and 2.5).

    Args:
        complexity: one score per user turn, `None` where the turn could not be scored.
        quality: one score per user turn, in the same order and of the same length.
        how: "sum" as in the paper, or "mean" over the turns that have both scores, which does not favour long
            conversations.
        counted: which turns count; None for all.

    Returns:
        The sum or mean over the counted turns that have both scores, or `None` if no turn has both.
    """
    assert len(complexity) == len(quality), f"{len(complexity)} complexity scores for {len(quality)} quality scores"
    pairs = zip(complexity, quality, strict=True)
    return over_turns([None if c is None or q is None else c * q for c, q in pairs], how, counted)


def over_turns(
    scores: Sequence[float | None], how: OverTurns = "sum", counted: Sequence[bool] | None = None
) -> float | None:
    """Sum or mean of the scores of one conversation's turns, to rank by complexity or quality alone.

    The sum is correctly rounded (`math.fsum`), so two conversations with the same scores in another order tie exactly.

    Args:
        scores: one per user turn, `None` where the turn could not be scored.
        how: "sum" or "mean".
        counted: which turns count; None for all.

    Returns:
        The sum or mean over the counted turns that have a score, or `None` if no turn has one.
    """
    if counted is not None:
        assert len(counted) == len(scores), f"{len(scores)} scores for {len(counted)} turns"
        scores = [score for score, counts in zip(scores, counted, strict=True) if counts]
    known = [score for score in scores if score is not None]
    if not known:
        return None
    return math.fsum(known) / (len(known) if how == "mean" else 1)
