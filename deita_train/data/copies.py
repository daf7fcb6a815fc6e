"""Copies among the rows of a pool: equal texts, and texts that share most of their five-word sequences."""

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import takewhile
from typing import Any, NamedTuple

from datasketch import MinHash, MinHashLSH

from deita_train.data.as_text import message_text

EXACT, NEAR = "exact_copy", "near_copy"
# Words of a sequence, as in Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better".
SHINGLE_WORDS = 5
_PERMUTATIONS = 128
# How likely a pair at the threshold itself may be missed; likelier pairs are missed more rarely.
_MISSED = 1e-3
# Scripts without spaces between words: each character is one.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")

Row = Mapping[str, Any]


class Copy(NamedTuple):
    """Why a row is left out: the reason, the place of the row that it repeats, and how similar the two are."""

    reason: str
    of: int
    similarity: float


def normalised(text: str) -> str:
    """A text in compatibility form and lower case, with one space for any white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(row: Row) -> frozenset[str]:
    """The sequences of five words in a conversation; of a shorter one, all its words, or its text without any."""
    text = " ".join(normalised(message_text(message)) for message in row["messages"])
    words = _WORD.findall(text)
    if len(words) < SHINGLE_WORDS:
        return frozenset([" ".join(words) or text])
    return frozenset(" ".join(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of the sequences of both that are in either."""
    return len(one & other) / len(one | other)


def find_copies(
    ids: Sequence[str],
    row_at: Callable[[int], Row],
    *,
    exact: bool,
    near: float | None,
    on_row: Callable[[int], None] = lambda done: None,
) -> dict[int, Copy]:
    """The rows that repeat another one, by their place.

    Rows are walked in the order of their ids, so that the order of the pool does not matter. A row is an exact copy if
    an earlier one has the same normalised text in every message, by the same roles, and the same tools. It is a near
    copy if the Jaccard similarity of its five-word sequences to those of a row that is kept is at least `near`; of
    several such rows it repeats the most similar, of equals the lowest id. MinHash only says which rows to compare: at
    `near` it misses less than one pair in a thousand, more similar ones more rarely, and none is left out wrongly.

    Args:
        ids: N unique ids.
        row_at: the row at a place, with `messages` and perhaps `tools`.
        exact: whether exact copies are left out.
        near: from which similarity near copies are left out, above 0 and at most 1; None for none.
        on_row: called with the number of rows done.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    first: dict[bytes, int] = {}
    index = None if near is None else _Index(near, row_at)
    copies: dict[int, Copy] = {}
    for done, place in enumerate(order, start=1):
        row = row_at(place)
        same = first.setdefault(_digest(row), place) if exact else place
        if same != place:
            # An equal text that is a near copy itself repeats what that one repeats.
            copies[place] = Copy(EXACT, copies[same].of if same in copies else same, 1.0)
        elif index is not None and (copy := index.copy_of(place, row, ids)) is not None:
            copies[place] = copy
        on_row(done)
    return copies


class _Index:
    """The rows kept so far by their MinHash."""

    def __init__(self, near: float, row_at: Callable[[int], Row]) -> None:
        rows_per_band = _rows_per_band(near)
        self.near = near
        self.kept = MinHashLSH(num_perm=_PERMUTATIONS, params=(_PERMUTATIONS // rows_per_band, rows_per_band))
        self.shingles = lru_cache(maxsize=4096)(lambda place: shingles(row_at(place)))

    def copy_of(self, place: int, row: Row, ids: Sequence[str]) -> Copy | None:
        """What a row repeats; a row that repeats none is kept."""
        own = shingles(row)
        sketch = MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
        sketch.update_batch([shingle.encode() for shingle in own])
        found = ((jaccard(own, self.shingles(other)), other) for other in self.kept.query(sketch))
        near = [(similarity, other) for similarity, other in found if similarity >= self.near]
        if near:
            similarity, other = min(near, key=lambda pair: (-pair[0], ids[pair[1]]))
            return Copy(NEAR, other, similarity)
        self.kept.insert(place, sketch)
        return None


def _rows_per_band(near: float) -> int:
    """The most rows of a band, of two bands at least, at which a pair of similarity `near` is missed rarely enough."""

    def finds(rows: int) -> bool:
        return (1 - near**rows) ** (_PERMUTATIONS // rows) < _MISSED

    return max([1, *takewhile(finds, range(1, _PERMUTATIONS // 2 + 1))])


def _digest(row: Row) -> bytes:
    digest = blake2b(digest_size=16)
    for part in _parts(row):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.digest()


def _parts(row: Row) -> Iterator[str]:
    for message in row["messages"]:
        yield message["role"]
        yield normalised(message_text(message))
    if row.get("tools"):
        yield repr(row["tools"])
