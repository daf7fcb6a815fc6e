"""The evol score of a conversation: complexity times quality, summed over its user turns (paper 2.5)."""

import math
from collections.abc import Sequence


def evol_score(complexity: Sequence[float | None], quality: Sequence[float | None]) -> float | None:
    """Sum of complexity * quality over the user turns of one conversation (arXiv 2312.15685, sections 2.2 and 2.5).

    Args:
        complexity: one score per user turn, ``None`` where the turn could not be scored.
        quality: one score per user turn, in the same order and of the same length.

    Returns:
        The sum over the turns that have both scores, or ``None`` if no turn has both.
    """
    assert len(complexity) == len(quality), f"{len(complexity)} complexity scores for {len(quality)} quality scores"
    pairs = zip(complexity, quality, strict=True)
    return sum_scores([None if c is None or q is None else c * q for c, q in pairs])


def sum_scores(scores: Sequence[float | None]) -> float | None:
    """Sum of the scores of one conversation's turns, nulls left out, or ``None`` if every turn is null.

    Used to rank by complexity alone or by quality alone. The sum is correctly rounded (``math.fsum``), so that two
    conversations with the same scores in another turn order tie exactly.
    """
    known = [score for score in scores if score is not None]
    return math.fsum(known) if known else None
