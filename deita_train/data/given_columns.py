"""Scores or embeddings made elsewhere, read from a table with an `id` column and joined to a pool by it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from deita_train.data.embeddings import unnamed_matrix
from deita_train.data.sources import SourceRow, iter_rows
from deita_train.data.texts import GrowingTexts, TextColumn, TextIndex
from deita_train.errors import UserError

LOWEST, HIGHEST = 1.0, 6.0
# An expectation over six float32 probabilities can exceed the range by rounding.
_ROUNDING = 1e-5
_NUM_NAMED = 5


@dataclass
class GivenColumn:
    """One column of the table ``dataset`` for the rows with ``ids``; ``num_unused`` counts its other rows.

    Iterating yields (position in ``ids``, where the value stands, value), each position once, in the table's order.

    Raises:
        UserError: the column or a row of ``ids`` is missing, or an id is invalid or repeated.
    """

    dataset: str
    column: str
    ids: Sequence[str]
    num_unused: int = 0

    def __iter__(self) -> Iterator[tuple[int, str, Any]]:
        wanted = TextIndex()
        wanted.extend(self.ids)
        seen, places = TextIndex(), GrowingTexts()
        for row in iter_rows(self.dataset):
            row_id, value = _value(row, "id"), _value(row, self.column)
            if type(row_id) not in (str, int):
                raise UserError(f"{row.where}: id {row_id!r} is not an id; expected text or a whole number")
            row_id = str(row_id)
            number = seen.add(row_id)
            if number < len(places):
                raise UserError(f"id {row_id!r} occurs twice: at {places[number]} and {row.where}; keep one")
            places.append(row.where)
            place = wanted.number_of(row_id)
            if place is None:
                self.num_unused += 1
            else:
                yield place, f"{row.where} (row {row_id!r})", value
        self._check_complete(seen)

    def _check_complete(self, found: TextIndex) -> None:
        missing = [row_id for row_id in self.ids if found.number_of(row_id) is None]
        if missing:
            raise UserError(
                f"{self.dataset}: {len(missing)} of the pool's {len(self.ids)} rows are not in it, such as "
                f"{', '.join(map(repr, missing[:_NUM_NAMED]))}; its own ids begin {found.texts[0]!r}. Make it for "
                "this pool. (A row without an id is called <name of the pool's file>:<row>.)"
            )


def _value(row: SourceRow, column: str) -> Any:
    if column not in row.row:
        raise UserError(f"{row.where}: column {column!r} is missing; the row has {', '.join(map(repr, row.row))}")
    return row.row[column]


@dataclass(frozen=True)
class GivenScores:
    """One score (float64) or null per user turn of each row, and how many rows of the table match none of the pool."""

    scores: pa.ListArray
    num_unused: int


def given_scores(dataset: str, column: str, ids: Sequence[str], num_turns: Sequence[int]) -> GivenScores:
    """The scores of the rows with ``ids``, which have ``num_turns`` user turns.

    A value is a list with a number from 1 to 6 or null per user turn; for a single turn the number alone works too.

    Raises:
        UserError: as ``GivenColumn`` does, and for a value that is not of this form.
    """
    given = GivenColumn(dataset, column, ids)
    ends = np.cumsum(num_turns, dtype=np.int64)
    scores = np.full(int(ends[-1]), np.nan)
    for place, where, value in given:
        of_row = _turn_scores(value, num_turns[place], f"{where}: {column}")
        scores[ends[place] - len(of_row) : ends[place]] = [np.nan if score is None else score for score in of_row]
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    return GivenScores(pa.ListArray.from_arrays(offsets, pa.array(scores, mask=np.isnan(scores))), given.num_unused)


def _turn_scores(value: Any, num_turns: int, where: str) -> list[float | None]:
    turns = value if isinstance(value, list) else [value]
    if len(turns) != num_turns:
        raise UserError(
            f"{where}: {len(turns)} scores for {num_turns} user turns; give one per turn, null where there is "
            "none. A score of the whole conversation may be given for the first turn, with nulls after it."
        )
    return [_score(turn, where) for turn in turns]


def _score(value: Any, where: str) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not LOWEST - _ROUNDING <= value <= HIGHEST + _ROUNDING:
        raise UserError(f"{where}: {value!r} is not a score; give a number from 1 to 6, or null")
    return float(value)


@dataclass(frozen=True)
class GivenEmbeddings:
    """Float32 [N, D] in the order of the ids, on disk, and how many rows of the table match no row of the pool."""

    matrix: np.ndarray
    num_unused: int


def given_ids(dataset: str) -> TextColumn:
    """The ids of a table with embeddings, in its order.

    Raises:
        UserError: the column ``id`` is missing.
    """
    ids = GrowingTexts()
    for row in iter_rows(dataset):
        ids.append(str(_value(row, "id")))
    return ids.column()


def given_embeddings(dataset: str, ids: Sequence[str]) -> GivenEmbeddings:
    """The embeddings of the rows with ``ids``: lists of finite numbers, all of one length.

    Raises:
        UserError: as ``GivenColumn`` does, and for a value that is not of this form.
    """
    given = GivenColumn(dataset, "embedding", ids)
    matrix: np.ndarray | None = None
    for place, where, value in given:
        vector = _vector(value, f"{where}: embedding")
        if matrix is None:
            matrix, first = unnamed_matrix((len(ids), len(vector)), np.dtype(np.float32)), where
        if len(vector) != matrix.shape[1]:
            raise UserError(f"{where}: the embedding has {len(vector)} numbers, and {first} has {matrix.shape[1]}")
        matrix[place] = vector
    assert matrix is not None, "a complete column of at least one row has a width"
    return GivenEmbeddings(matrix, given.num_unused)


def _vector(value: Any, where: str) -> np.ndarray:
    """Float32 [D]; converted last, so that text and null are not mistaken for numbers."""
    try:
        vector = np.asarray(value)
    except ValueError:  # lists of different lengths
        vector = np.empty(0)
    if vector.ndim != 1 or not len(vector) or vector.dtype.kind not in "iuf":
        raise UserError(f"{where}: no list of numbers (it begins {str(value)[:40]!r})")
    with np.errstate(over="ignore"):
        narrow: np.ndarray = vector.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise UserError(f"{where}: holds a number that is not finite in float32")
    return narrow
