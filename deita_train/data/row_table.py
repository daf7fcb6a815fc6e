"""Rows collected into Arrow tables: columns of fixed types, and extra ones typed by their values."""

import hashlib
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from deita_train.data.json_text import JSON_TYPE, LoneSurrogate, NotJson, json_array, json_lists, json_text
from deita_train.data.messages import Message, UnusableRow
from deita_train.data.plain_values import is_unicode_text
from deita_train.data.sources import SourceRow
from deita_train.data.spilled import SpilledTables

ROWS_PER_CHUNK = 1000
_MOST_IN_MEMORY = 1 << 26

MESSAGES_TYPE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""The type of messages as long as none in the table has further fields; else they are lists of JSON."""
_KINDS: Mapping[type, str] = {bool: "bool", int: "int", float: "float", str: "str"}
TEXTS = "list of texts"
FRACTIONS = "list of fractions"
JSON = "JSON"
_ARROW_TYPES = {
    None: pa.null(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    TEXTS: pa.list_(pa.string()),
    FRACTIONS: pa.list_(pa.float64()),
    JSON: JSON_TYPE,
}


class _JsonText(str):
    """A value that is written already, and what it was."""

    __slots__ = ("holds",)
    holds: str


class OwnColumn(NamedTuple):
    """A column's value in one row, and its kind: a key of ``_ARROW_TYPES``."""

    kind: str | None
    value: Any


class RowTable:
    """Rows collected into Arrow tables of ``ROWS_PER_CHUNK`` rows, so no Python copy of the data is held.

    Tables beyond 64 MiB lie in files, which are memory-mapped and have no name, so they go with the table.

    Columns: ``id``, those of ``types``, ``source``, then the rows' own. A column is typed if its values are scalars of
    one type (whole numbers mixed with fractions become fractions), lists of texts or lists of fractions. Anything else,
    such as objects, values of several types and numbers beyond 64 bits, is kept as JSON, and ``json_columns`` says why.
    Input columns named like one of ``types``, or like one of ``reserved`` (written by later stages), are not copied,
    nor are those with values that JSON cannot write, and a ``source`` that is not a string; ``left_out`` names these.

    Args:
        types: the columns of every row; a ``JSON_TYPE`` among them is there only if a row has a value.
        reserved: names of columns that are not copied.
    """

    def __init__(self, types: Mapping[str, pa.DataType], reserved: Collection[str] = ()) -> None:
        self.types = {**{name: type for name, type in types.items() if type != JSON_TYPE}, "source": pa.string()}
        self.optional = [name for name, type in types.items() if type == JSON_TYPE]
        self.reserved = {*types, *reserved}
        self.kinds: dict[str, str | None] = {}  # column -> kind of its values; None while all are null
        self.first_seen: dict[str, str] = {}  # column -> where its kind was first seen
        self.json_columns: dict[str, str] = {}
        self.left_out: set[str] = set()
        self.pending: list[dict[str, Any]] = []
        self.chunks = SpilledTables(_MOST_IN_MEMORY)

    def own_columns(self, row: SourceRow, consumed: Collection[str]) -> dict[str, OwnColumn]:
        """The columns of a row that the table will keep, all but those in ``consumed``.

        Raises:
            UnusableRow: one holds a lone surrogate, or has one in its name.
        """
        columns = {}
        for name, value in row.row.items():
            if name == "id" or name in consumed:
                continue
            if not is_unicode_text(name):
                raise UnusableRow(
                    "not_text", f"the name of column {name!r} holds a lone surrogate, which is not Unicode text"
                )
            if name in self.reserved:
                self.left_out.add(name)
            if name in self.left_out and name != "source":
                continue
            try:
                columns[name] = _own_column(value)
            except LoneSurrogate:
                raise UnusableRow(
                    "not_text", f"column {name!r} holds a lone surrogate, which is not Unicode text"
                ) from None
            except NotJson:
                self.left_out.add(name)
                self.kinds.pop(name, None)
                self.json_columns.pop(name, None)
        return columns

    def append(self, values: Mapping[str, Any], columns: dict[str, OwnColumn], source: str, where: str) -> None:
        """Add one row.

        Args:
            values: for all ``types``.
            columns: the row's own, as ``own_columns`` gives them; its ``source`` is used if it is a string.
            source: the source of a row without one of its own.
            where: the row's position.
        """
        own_source = columns.pop("source", OwnColumn(None, None))
        if own_source.kind == "str":
            source = own_source.value
        elif own_source.value is not None:
            self.left_out.add("source")
        pending = {**values, "source": source}
        for name, column in columns.items():
            if column.kind != self.kinds.get(name, ""):
                self._settle(name, column, where)
            pending[name] = column.value
        self.pending.append(pending)
        if len(self.pending) == ROWS_PER_CHUNK:
            self._flush()

    def _settle(self, name: str, column: OwnColumn, where: str) -> None:
        """Update the column's kind by a value: unchanged, widened to fractions, or to JSON."""
        kind, known = column.kind, self.kinds.setdefault(name, None)
        if kind is None or known == JSON:
            return
        first = self.first_seen.setdefault(name, where)
        if kind == JSON:
            self._keep_as_json(name, f"{column.value.holds} (first at {where})")
        elif known is None or (known, kind) == ("int", "float"):
            self.kinds[name] = kind
        elif (known, kind) != ("float", "int") and (known, column.value) != (FRACTIONS, []):
            self._keep_as_json(name, f"values of several types: {known} at {first}, {kind} at {where}")

    def _keep_as_json(self, name: str, reason: str) -> None:
        self.kinds[name] = JSON
        self.json_columns.setdefault(name, reason)

    def _flush(self) -> None:
        columns: dict[str, pa.Array] = {}
        for name, type in self.types.items():
            values = [row[name] for row in self.pending]
            columns[name] = _messages_array(values) if type == MESSAGES_TYPE else pa.array(values, type=type)
        for name in self.optional:
            texts = [None if row[name] is None else json_text(row[name]) for row in self.pending]
            columns[name] = json_array(texts)
        for name in self.kinds:
            columns[name] = self._own_array(name, [row.get(name) for row in self.pending])
        self.chunks.append(pa.table(columns))
        self.pending.clear()

    def _own_array(self, name: str, values: list[Any]) -> pa.Array:
        try:
            if self.kinds[name] != JSON:
                return pa.array(values, type=_ARROW_TYPES[self.kinds[name]])
        except pa.ArrowInvalid as error:
            self._refuse_float64(name, error)
        return json_array([_as_json(value) for value in values])

    def _refuse_float64(self, name: str, error: pa.ArrowInvalid) -> None:
        """Whole numbers beyond 2**53 have no exact float64, so their column cannot be widened."""
        assert self.kinds[name] == "float", error
        self._keep_as_json(name, "fractions, and whole numbers too large for float64")

    def finish(self, ids: pa.ChunkedArray) -> pa.Table:
        """All rows (at least one) as one table, ``ids`` first; early chunks are cast to the final types."""
        if self.pending:
            self._flush()
        columns = {name: self._same_type([chunk[name] for chunk in self.chunks]) for name in self.types}
        for name in self.optional:
            if any(chunk[name].null_count < chunk.num_rows for chunk in self.chunks):
                columns[name] = [chunk[name] for chunk in self.chunks]
        for name in self.kinds:
            columns[name] = self._own_chunks(name)
        table = pa.concat_tables(
            [
                pa.table([arrays[place] for arrays in columns.values()], list(columns))
                for place in range(len(self.chunks))
            ]
        )
        return table.add_column(0, "id", ids)

    def _same_type(self, chunks: list[pa.ChunkedArray]) -> list[pa.Array | pa.ChunkedArray]:
        """A column's chunks; messages are lists of JSON in all of them if they are in one."""
        if all(chunk.type == chunks[0].type for chunk in chunks):
            return list(chunks)
        return [_json_messages(chunk.to_pylist()) if chunk.type == MESSAGES_TYPE else chunk for chunk in chunks]

    def _own_chunks(self, name: str) -> list[pa.Array | pa.ChunkedArray]:
        try:
            return [self._own_chunk(chunk, name) for chunk in self.chunks]
        except pa.ArrowInvalid as error:
            self._refuse_float64(name, error)
            return [self._own_chunk(chunk, name) for chunk in self.chunks]

    def _own_chunk(self, chunk: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
        kind = self.kinds[name]
        if name not in chunk.column_names:
            return pa.array([None] * chunk.num_rows, type=_ARROW_TYPES[kind])
        if kind == JSON and chunk[name].type != JSON_TYPE:
            return json_array([_as_json(value) for value in chunk[name].to_pylist()])
        return chunk[name].cast(_ARROW_TYPES[kind])


def _own_column(value: Any) -> OwnColumn:
    """A value with its kind; one that has no type of its own is written as JSON.

    Raises:
        NotJson: it cannot be.
        LoneSurrogate: it holds one.
    """
    if value is None:
        return OwnColumn(None, None)
    kind = _KINDS.get(type(value))
    if kind == "int" and not -(2**63) <= value < 2**63:
        kind = None
    elif kind == "str" and not is_unicode_text(value):
        raise LoneSurrogate(value)
    if kind is None and isinstance(value, list):
        kind = _list_kind(value)
    return _json_column(value) if kind is None else OwnColumn(kind, value)


def _list_kind(value: list[Any]) -> str | None:
    if all(isinstance(item, str) for item in value):
        if not all(map(is_unicode_text, value)):
            raise LoneSurrogate(value)
        return TEXTS
    return FRACTIONS if all(type(item) is float for item in value) else None


def _json_column(value: Any) -> OwnColumn:
    text = _JsonText(json_text(value))
    if isinstance(value, dict | list | tuple):
        text.holds = "lists or objects"
    else:
        text.holds = (
            "numbers beyond 64 bits" if isinstance(value, int) else f"values of the type {type(value).__name__}"
        )
    return OwnColumn(JSON, text)


def _as_json(value: Any) -> str | None:
    return value if value is None or type(value) is _JsonText else json_text(value)


def _messages_array(rows: list[list[Message]]) -> pa.Array:
    """Conversations of plain messages in columns of their own, those with further fields as JSON."""
    if max(map(len, chain.from_iterable(rows)), default=0) > 2:
        return _json_messages(rows)
    return pa.array(rows, type=MESSAGES_TYPE)


def _json_messages(rows: list[list[Message]]) -> pa.ListArray:
    return json_lists([list(map(json_text, messages)) for messages in rows])


def as_dataset(table: pa.Table) -> datasets.Dataset:
    """A table in memory as a dataset; without our fingerprint, datasets would pickle the whole table to make one."""
    return datasets.Dataset(InMemoryTable(table), fingerprint=fingerprint(table))


def fingerprint(table: pa.Table) -> str:
    """A digest of schema and contents; equal for equal tables built the same way."""
    digest = hashlib.blake2b(table.schema.to_string().encode(), digest_size=8)
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                digest.update(b"-" if buffer is None else memoryview(buffer))
    return digest.hexdigest()
