"""Copies among the rows of a pool: equal texts, and texts that share most of their five-word sequences."""

import re
import unicodedata
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasketch import MinHash

from deita_train.data.arrow_columns import texts_by_code
from deita_train.data.as_text import message_text
from deita_train.data.buckets import Buckets
from deita_train.data.parallel import in_parallel
from deita_train.data.texts import TextIndex, order_of_texts

EXACT, NEAR = "exact_copy", "near_copy"
# Words of a sequence, as in Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better".
SHINGLE_WORDS = 5
_PERMUTATIONS = 128
# How likely a pair at the threshold itself may be missed; likelier pairs are missed more rarely.
_MISSED = 1e-3
_NONE = -1
# Sequences of a long row are some hundred kilobytes.
_KEPT_SHINGLES = 1024
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


class Copies(Mapping[int, Copy]):
    """The copies among N rows by their place, held as columns of numbers."""

    def __init__(self, num_rows: int) -> None:
        self._of = np.full(num_rows, _NONE, np.int64)
        self._similarity = np.full(num_rows, np.nan)
        self._is_exact = np.zeros(num_rows, bool)

    def add(self, place: int, copy: Copy) -> None:
        """Say what a row repeats."""
        self._of[place], self._similarity[place], self._is_exact[place] = copy.of, copy.similarity, copy.reason == EXACT

    @property
    def places(self) -> np.ndarray:
        """The places of all copies, int64."""
        return np.flatnonzero(self._of != _NONE)

    def __getitem__(self, place: int) -> Copy:
        if self._of[place] == _NONE:
            raise KeyError(place)
        reason = EXACT if self._is_exact[place] else NEAR
        return Copy(reason, int(self._of[place]), float(self._similarity[place]))

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and self._of[place] != _NONE

    def __iter__(self) -> Iterator[int]:
        yield from self.places.tolist()

    def __len__(self) -> int:
        return len(self.places)

    def reasons(self) -> pa.Array:
        """Why each row is left out, text; null for one that is no copy."""
        return texts_by_code(np.where(self._of == _NONE, _NONE, self._is_exact), [NEAR, EXACT])

    def repeats(self) -> pa.Array:
        """The place of the row that each one repeats, int64; null for one that is no copy."""
        return pa.array(self._of, pa.int64(), mask=self._of == _NONE)

    def similarities(self) -> pa.Array:
        """How similar the two are, float64; null for a row that is no copy."""
        return pa.array(self._similarity, pa.float64(), mask=self._of == _NONE)


def find_copies(
    ids: Sequence[str],
    row_at: Callable[[int], Row],
    *,
    exact: bool,
    near: float | None,
    on_row: Callable[[int], None] = lambda done: None,
) -> Copies:
    """The rows that repeat another one, by their place.

    Rows are walked in the order of their ids, so that the order of the pool does not matter. A row is an exact copy if
    an earlier one has the same normalised text in every message, by the same roles, and the same tools. It is a near
    copy if the Jaccard similarity of its five-word sequences to those of a row that is kept is at least `near`; of
    several such rows it repeats the most similar, of equals the lowest id. MinHash only says which rows to compare: at
    `near` it misses less than one pair in a thousand, more similar ones more rarely, and none is left out wrongly.

    Memory holds a few numbers for each row; what MinHash found lies in files, 16 bytes for each row and band.

    Args:
        ids: N unique ids.
        row_at: the row at a place, with `messages` and perhaps `tools`.
        exact: whether exact copies are left out.
        near: from which similarity near copies are left out, above 0 and at most 1; None for none.
        on_row: called with the number of rows done.
    """
    order = order_of_texts(ids)
    first, places = TextIndex(), array("q")
    buckets = None if near is None else Buckets(len(ids), _PERMUTATIONS // _rows_per_band(near))
    same = np.full(len(ids), _NONE, np.int64)
    done = 0
    for digests, keys in in_parallel(len(ids), partial(_sketched, order, row_at, exact, near)):
        if buckets is not None:
            buckets.write(done, keys)
        for digest in digests:
            number = len(places) if digest is None else first.add(digest)
            if number < len(places):
                same[order[done]] = places[number]
            else:
                places.append(order[done])
            done += 1
            on_row(done)
    return _walked(ids, row_at, order, same, near, buckets)


def _walked(
    ids: Sequence[str],
    row_at: Callable[[int], Row],
    order: np.ndarray,
    same: np.ndarray,
    near: float | None,
    buckets: Buckets | None,
) -> Copies:
    """The copies, walking the rows in order; `same` has the place of an earlier equal text, or -1."""
    copies, shingles_at = Copies(len(ids)), lru_cache(maxsize=_KEPT_SHINGLES)(lambda place: shingles(row_at(place)))
    if buckets is not None:
        buckets.sort()
    for number, place in enumerate(order.tolist()):
        if (equal := int(same[place])) != _NONE:
            # An equal text that is a near copy itself repeats what that one repeats.
            copies.add(place, Copy(EXACT, copies[equal].of if equal in copies else equal, 1.0))
        elif buckets is not None and near is not None:
            others = order[buckets.kept_beside(number)].tolist()
            found = [(jaccard(shingles_at(place), shingles_at(other)), other) for other in others]
            alike = [(similarity, other) for similarity, other in found if similarity >= near]
            if alike:
                similarity, other = min(alike, key=lambda pair: (-pair[0], ids[pair[1]]))
                copies.add(place, Copy(NEAR, other, similarity))
            else:
                buckets.keep(number)
    return copies


def _sketched(
    order: np.ndarray, row_at: Callable[[int], Row], exact: bool, near: float | None, part: range
) -> tuple[list[str | None], np.ndarray]:
    """Of some rows in the order of ids: digests of the whole text, and the keys of each band, uint64 [rows, bands]."""
    rows = [row_at(place) for place in order[part.start : part.stop].tolist()]
    digests = [_digest(row) if exact else None for row in rows]
    if near is None:
        return digests, np.empty((0, 0), np.uint64)
    per_band = _rows_per_band(near)
    return digests, np.stack([_keys(row, per_band) for row in rows])


def _keys(row: Row, per_band: int) -> np.ndarray:
    """A number for each band of a row's MinHash, uint64 [bands]."""
    sketch = MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
    sketch.update_batch([shingle.encode() for shingle in shingles(row)])
    bands = sketch.hashvalues[: _PERMUTATIONS // per_band * per_band].reshape(-1, per_band)
    digests = [blake2b(np.ascontiguousarray(band).tobytes(), digest_size=8).digest() for band in bands]
    return np.frombuffer(b"".join(digests), np.uint64)


def _rows_per_band(near: float) -> int:
    """The most rows of a band, of two bands at least, at which a pair of similarity `near` is missed rarely enough."""

    def finds(rows: int) -> bool:
        return (1 - near**rows) ** (_PERMUTATIONS // rows) < _MISSED

    return max([1, *takewhile(finds, range(1, _PERMUTATIONS // 2 + 1))])


def _digest(row: Row) -> str:
    digest = blake2b(digest_size=16)
    for part in _parts(row):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def _parts(row: Row) -> Iterator[str]:
    for message in row["messages"]:
        yield message["role"]
        yield normalised(message_text(message))
    if row.get("tools"):
        yield repr(row["tools"])
