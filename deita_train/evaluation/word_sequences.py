"""Sequences of successive words as hashes: which 13 words, and whether they are those of an indexed text.

Lengths are in half words, the weight of a character of a script without spaces between words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deita_train.evaluation.normalised_words import is_unspaced

HALVES = 2
GRAM = 13 * HALVES

UNKNOWN = -1
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


class Vocabulary:
    """The words of an index by number, each with its weight and whether it says something."""

    def __init__(self) -> None:
        """Start without words."""
        self._numbers: dict[str, int] = {}
        self._weights: list[int] = []
        self._telling: list[bool] = []

    def add(self, words: Iterable[str]) -> np.ndarray:
        """The number of each word, `[N]` int64; new ones get the next numbers."""
        return np.array([self._add(word) for word in words], dtype=np.int64)

    def numbers(self, words: Iterable[str]) -> np.ndarray:
        """The number of each word, `[N]` int64, or `UNKNOWN`."""
        get = self._numbers.get
        return np.array([get(word, UNKNOWN) for word in words], dtype=np.int64)

    def weights(self, numbers: np.ndarray) -> np.ndarray:
        """The weight of each word; an unknown one's does not matter, because no sequence goes over it."""
        return np.array([*self._weights, HALVES], dtype=np.int64)[numbers]

    def weight(self, numbers: Iterable[int]) -> int:
        """The weight of all words together."""
        return sum(self._weights[number] for number in numbers)

    def telling_share(self, numbers: Sequence[int]) -> float:
        """Share of the words, by weight, that are different ones of two letters or more."""
        different = {number for number in numbers if self._telling[number]}
        return self.weight(different) / self.weight(numbers)

    def _add(self, word: str) -> int:
        number = self._numbers.setdefault(word, len(self._numbers))
        if number == len(self._weights):
            alone = is_unspaced(word)
            self._weights.append(1 if alone else HALVES)
            self._telling.append((alone or len(word) > 1) and any(map(str.isalpha, word)))
        return number


@dataclass(frozen=True)
class Sequences:
    """N sequences of indexed texts, in ascending order of their hashes.

    Attributes:
        hashes: uint64 [N].
        texts: the number of the text that each is from.
        starts: where it begins there.
        ends: where it ends.
    """

    hashes: np.ndarray
    texts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, parts: Sequence["Sequences"]) -> "Sequences":
        """All of the parts together."""
        columns = [
            np.concatenate([getattr(part, name) for part in parts]) for name in ("hashes", "texts", "starts", "ends")
        ]
        order = np.argsort(columns[0], kind="stable")
        return cls(*(column[order] for column in columns))

    def places(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the hashes are there, and for each of those the first place that has it."""
        first = np.searchsorted(self.hashes, hashes)
        there = first < len(self.hashes)
        there[there] = self.hashes[first[there]] == hashes[there]
        found = np.flatnonzero(there)
        return found, first[found]


def grams(stream: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each shortest sequence of known words with the weight of 13 begins and ends."""
    before = np.concatenate([[0], np.cumsum(weights)])
    ends = np.searchsorted(before, before[:-1] + GRAM)
    starts = np.flatnonzero(ends <= len(stream))
    return of_known_words(stream, starts, ends[starts])


def of_known_words(stream: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of the windows without an unknown word."""
    unknown = np.concatenate([[0], np.cumsum(stream == UNKNOWN)])
    known = unknown[ends] == unknown[starts]
    return starts[known], ends[known]


def hashes_of(stream: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A polynomial hash of each window, modulo 2^64: sum of the words' values times powers of the base, from 0."""
    values = _mixed(stream.astype(np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * _powers(_BASE, len(stream)), dtype=np.uint64)])
    return (sums[ends] - sums[starts]) * _powers(_INVERSE, len(stream) + 1)[starts]


def _powers(base: np.uint64, number: int) -> np.ndarray:
    """`base` to the power of 0 to `number` - 1, modulo 2^64."""
    factors = np.full(max(number, 1), base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)[:number]


def _mixed(values: np.ndarray) -> np.ndarray:
    """Small numbers as 64 bits that look random (splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
