"""What can be said of a model's answers without a judge: how many there are, how long, cut, empty, repetitive."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from deita_train.evaluation.dialogues import Reply

_N = 4


def answer_facts(replies: Sequence[Reply]) -> dict[str, Any]:
    """The metrics of all answers; shares and means are over those that there are, None without any."""
    answers = [(reply, reply.text) for reply in replies if reply.text is not None]
    repeated = [share for _, text in answers if (share := repeated_share(text)) is not None]
    return {
        "asked": len(replies),
        "answers": len(answers),
        "unanswered": dict(Counter(reply.reason for reply in replies if reply.reason is not None)),
        "empty_share": _mean([not text for _, text in answers]),
        "truncated_share": _mean([not reply.ended for reply, _ in answers]),
        "mean_tokens": _mean([reply.tokens for reply, _ in answers]),
        "seq_rep_4": _mean(repeated),
    }


def repeated_share(text: str) -> float | None:
    """seq-rep-4 [arXiv 1908.04319] of words: 1 minus the different 4-grams of an answer over all its 4-grams.

    Words stand between white space and count in lower case; None for fewer than four.
    """
    words = text.lower().split()
    grams = [tuple(words[start : start + _N]) for start in range(len(words) - _N + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
