"""Columns of many texts, such as ids: read from Arrow, looked up by their hashes, never held as Python objects."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.lazy_sequence import LazySequence
from deita_train.data.numbered_keys import NumberedKeys
from deita_train.data.spilled import SpilledTables

_AT_ONCE = 1 << 14
_MOST_IN_MEMORY = 1 << 24
_EMPTY = -1

ArrowTexts: TypeAlias = pa.Array | pa.ChunkedArray


class TextColumn(LazySequence[str]):
    """The texts of an Arrow column, which may lie in a mapped file."""

    def __init__(self, column: ArrowTexts) -> None:
        self.column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])

    def __len__(self) -> int:
        return len(self.column)

    def item(self, place: int) -> str:
        """The text at a place."""
        text: str = self.column[int(place)].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for part in self.parts():
            yield from part.to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextColumn):
            return bool(self.column.equals(other.column))
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def at(self, places: np.ndarray) -> "TextColumn":
        """The texts at some places, in memory."""
        return TextColumn(self.column.take(pa.array(places)))

    def first(self, number: int) -> "TextColumn":
        """The first texts, which are not copied."""
        return TextColumn(self.column.slice(0, number))

    def in_one_piece(self) -> pa.Array:
        """The column without chunks: to take rows of a chunked one joins its chunks each time.

        Memory holds the texts once as bytes, unless there is one chunk.
        """
        return (
            self.column.chunk(0)
            if self.column.num_chunks == 1
            else self.column.cast(pa.large_string()).combine_chunks()
        )

    def parts(self) -> Iterator[pa.ChunkedArray]:
        """The column in parts that fit in memory as Python objects."""
        for start in range(0, len(self), _AT_ONCE):
            yield self.column.slice(start, _AT_ONCE)


def as_column(texts: Sequence[str] | ArrowTexts) -> TextColumn:
    """Texts as a column; only those that are a sequence of Python's are copied."""
    if isinstance(texts, TextColumn):
        return texts
    return TextColumn(texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.string()))


def order_of_texts(texts: Sequence[str]) -> np.ndarray:
    """The positions `[N]` int64 of the texts by code points, as Python compares them."""
    # UTF-8 keeps the order of code points.
    order: np.ndarray = pc.array_sort_indices(as_column(texts).in_one_piece()).to_numpy()
    return order.astype(np.int64)


def are_unique(texts: Sequence[str], order: np.ndarray) -> bool:
    """Whether no text is there twice; `order` is that of :func:`order_of_texts`."""
    column = as_column(texts).in_one_piece()
    for start in range(0, len(order) - 1, _AT_ONCE):
        following = column.take(pa.array(order[start : start + _AT_ONCE + 1]))
        if pc.any(pc.equal(following[:-1], following[1:])).as_py():
            return False
    return True


def places_of(wanted: Sequence[str], there: Sequence[str]) -> np.ndarray:
    """Where each of the texts `wanted` is among those `there`, which are unique: `[N]` int64, -1 for nowhere."""
    searched, known = as_column(wanted), as_column(there)
    if searched == known:
        return np.arange(len(known))
    hashes = numbers_of(known)
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    known = TextColumn(known.in_one_piece())
    found = [_found(part, known, hashes, order) for part in searched.parts()]
    return np.concatenate([np.empty(0, np.int64), *found])


def numbers_of(texts: Sequence[str | None]) -> np.ndarray:
    """A number for each text, int64 `[N]`, by which it is found; others have the same one once in 2**64."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def _found(part: pa.ChunkedArray, known: TextColumn, hashes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The same for some texts; `hashes` of the known ones are sorted, and `order` says whose they are."""
    wanted = numbers_of(TextColumn(part))
    first, beyond = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
    places = np.full(len(part), _EMPTY, np.int64)
    hit = first < beyond
    places[hit] = order[first[hit]]
    equal = pc.equal(known.column.take(pa.array(places[hit])), part.filter(pa.array(hit)))
    for place in np.flatnonzero(hit)[~equal.to_numpy().astype(bool)]:
        # Another text with the same hash stands first.
        same = order[first[place] : beyond[place]].tolist()
        text = part[int(place)].as_py()
        places[place] = next((one for one in same if known[one] == text), _EMPTY)
    return places


class GrowingTexts(LazySequence[str]):
    """Texts added one by one, on disk but for the last ones."""

    def __init__(self) -> None:
        self._tables = SpilledTables(_MOST_IN_MEMORY)
        self._pending: list[str] = []

    def append(self, text: str) -> None:
        """Add a text."""
        self._pending.append(text)
        if len(self._pending) == _AT_ONCE:
            self._flush()

    def __len__(self) -> int:
        return len(self._tables) * _AT_ONCE + len(self._pending)

    def item(self, place: int) -> str:
        """The text at a place."""
        table, row = divmod(place, _AT_ONCE)
        if table == len(self._tables):
            return self._pending[row]
        text: str = self._tables[table]["text"][row].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        return iter(self.column())

    def column(self) -> TextColumn:
        """All texts so far."""
        arrays = [chunk for table in self._tables for chunk in table["text"].chunks]
        return TextColumn(pa.chunked_array([*arrays, pa.array(self._pending, pa.string())], pa.string()))

    def _flush(self) -> None:
        self._tables.append(pa.table({"text": pa.array(self._pending, pa.string())}))
        self._pending.clear()


class TextIndex(NumberedKeys[str]):
    """Different texts, numbered in the order in which they were added; they lie on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = GrowingTexts()

    def _hash(self, key: str) -> int:
        return hash(key)

    def _keep(self, key: str) -> None:
        self.texts.append(key)

    def _is(self, number: int, key: str) -> bool:
        return self.texts[number] == key
