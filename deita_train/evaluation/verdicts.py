"""What a judge's answer says: a rating from 1 to 10, or which of two answers is better. Read as FastChat reads it."""

import re
from typing import Literal

from deita_train.evolve.elimination import CUT_OFF, reason_of_call
from deita_train.evolve.reading import Unusable, without_thoughts
from deita_train.llm.answers import Answer, Failure

LOWEST, HIGHEST = 1, 10
Winner = Literal["first", "second", "tie"]

_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_RATING_IN_SINGLE_BRACKETS = re.compile(r"\[(\d+\.?\d*)\]")
# In FastChat's order: a judge that names both has named A.
_VERDICTS: tuple[tuple[str, Winner], ...] = (("[[A]]", "first"), ("[[B]]", "second"), ("[[C]]", "tie"))
# The letters of the package's own words, and those of AlpacaEval's published prompts.
_LETTERS: dict[str, Winner] = {"A": "first", "m": "first", "B": "second", "M": "second"}


def said(answer: Answer | Failure) -> str | Unusable:
    """The words of a judge without its thoughts, or why there are none; words that were cut off may hold a verdict."""
    failed = reason_of_call(answer)
    if isinstance(answer, Failure):
        return Unusable(str(failed), answer.detail)
    if failed not in (None, CUT_OFF):
        return Unusable(str(failed), "the server held it back")
    return without_thoughts(answer.text)


def read_rating(answer: Answer | Failure) -> float | Unusable:
    """The first rating in double brackets, or else in single ones.

    Returns:
        A number from 1 to 10; or why there is none: "no_rating", "out_of_range", or the reason of a failed call.
    """
    words = said(answer)
    if isinstance(words, Unusable):
        return words
    found = _RATING.search(words) or _RATING_IN_SINGLE_BRACKETS.search(words)
    if found is None:
        return _nothing(answer, "no_rating", "it has no number in brackets")
    rating = float(found[1])
    if not LOWEST <= rating <= HIGHEST:
        return Unusable("out_of_range", f"it rates {found[1][:12]}, and ratings go from {LOWEST} to {HIGHEST}")
    return rating


def read_winner(answer: Answer | Failure) -> Winner | Unusable:
    """Whether the first answer that the judge saw is better, the second, or neither."""
    words = said(answer)
    if isinstance(words, Unusable):
        return words
    for mark, winner in _VERDICTS:
        if mark in words:
            return winner
    return _nothing(answer, "no_verdict", "it has none of [[A]], [[B]] and [[C]]")


def read_letter(answer: Answer | Failure) -> Winner | Unusable:
    """The one letter of a judge that was asked for no more: A (or m) for the first answer, B (or M) for the second."""
    words = said(answer)
    if isinstance(words, Unusable):
        return words
    letter = words.strip(" \t\r\n.:;,*_`'\"()[]{}<>")
    if letter not in _LETTERS:
        return _nothing(answer, "no_letter", "it is not one letter, A or B")
    return _LETTERS[letter]


def _nothing(answer: Answer | Failure, reason: str, detail: str) -> Unusable:
    return Unusable(CUT_OFF if reason_of_call(answer) == CUT_OFF else reason, detail)


def letter_of_token(token: str) -> Winner | None:
    """What a token says that has a letter and nothing else besides spaces; None for any other."""
    return _LETTERS.get(token.strip(" \u2581\u0120"))
