"""Rows collected into Arrow tables: columns of fixed types, and extra ones typed by their values."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from deita_train.data.conversations import is_unicode_text
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError

ROWS_PER_CHUNK = 1000

MESSAGES_TYPE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_KINDS: Mapping[type, str] = {bool: "bool", int: "int", float: "float", str: "str"}
TEXTS = "list of texts"
_ARROW_TYPES = {
    None: pa.null(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    TEXTS: pa.list_(pa.string()),
}


class RowTable:
    """Rows collected into Arrow tables of ``ROWS_PER_CHUNK`` rows, so no Python copy of the data is held.

    Columns: ``id``, those of ``types``, ``source``, then the rows' own scalar columns and, if ``with_lists``, their
    lists of strings. Input columns named like one of these, or like one of ``reserved`` (written by later stages), are
    not copied, except a ``source`` of strings; ``left_out`` names what was not copied.
    """

    def __init__(
        self, types: Mapping[str, pa.DataType], reserved: Collection[str] = (), *, with_lists: bool = False
    ) -> None:
        self.types = {**types, "source": pa.string()}
        self.reserved = {*types, *reserved}
        self.with_lists = with_lists
        self.kinds: dict[str, str | None] = {}  # column -> kind of its values; None while all are null
        self.first_seen: dict[str, str] = {}  # column -> where its kind was first seen
        self.left_out: set[str] = set()
        self.pending: list[dict[str, Any]] = []
        self.chunks: list[pa.Table] = []

    def append(self, row: SourceRow, source: str, values: Mapping[str, Any], consumed: Collection[str]) -> None:
        """Add one row: ``values`` for all ``types``, and every other column of ``row`` that is not in ``consumed``.

        The row's own ``source`` is used if it is a string, else ``source``.

        Raises:
            UserError: if a column changes its type or holds what Arrow cannot store.
        """
        own_source = row.row.get("source")
        if isinstance(own_source, str):
            source = require_unicode(own_source, "source", row)
        elif own_source is not None:
            self.left_out.add("source")
        others = {name: value for name, value in row.row.items() if name not in ("id", "source", *consumed)}
        for name, value in others.items():
            if name not in self.left_out:
                self._observe(name, value, row)
        self.pending.append({**others, **values, "source": source})
        if len(self.pending) == ROWS_PER_CHUNK:
            self._flush()

    def _observe(self, name: str, value: Any, row: SourceRow) -> None:
        """Update the column's kind by ``value``: unchanged, widened to float, left out, or an error."""
        kind = None if value is None else self._kind(value)
        # A column with lists in some rows and other values elsewhere is left out, like any other list.
        mixed = TEXTS in (kind, self.kinds.get(name)) and len({kind, self.kinds.get(name)} - {None}) > 1
        if name in self.reserved or mixed or (value is not None and kind is None):
            self.left_out.add(name)
            self.kinds.pop(name, None)
            return
        known = self.kinds.setdefault(name, kind)
        if kind is None:
            return
        self.first_seen.setdefault(name, row.where)
        if known is None or (known, kind) == ("int", "float"):
            self.kinds[name] = kind
        elif kind != known and (known, kind) != ("float", "int"):
            raise UserError(
                f"column {name!r} changes its type: {known} at {self.first_seen[name]}, {kind} ({value!r}) at"
                f" {row.where}; convert the column to one type, rename it in one source, or remove it"
            )
        self._require_storable(name, value, row)

    def _kind(self, value: Any) -> str | None:
        if self.with_lists and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return TEXTS
        return _KINDS.get(type(value))

    def _require_storable(self, name: str, value: Any, row: SourceRow) -> None:
        if isinstance(value, list):
            for item in value:
                require_unicode(item, name, row)
        elif isinstance(value, str):
            require_unicode(value, name, row)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UserError(f"{row.where}: column {name!r} holds {value}, beyond 64 bits; write it as a string")

    def _flush(self) -> None:
        columns: dict[str, pa.Array] = {
            name: pa.array([row[name] for row in self.pending], type=type) for name, type in self.types.items()
        }
        for name, kind in self.kinds.items():
            columns[name] = _scalar_array(name, [row.get(name) for row in self.pending], kind)
        self.chunks.append(pa.table(columns))
        self.pending.clear()

    def finish(self, ids: Sequence[str]) -> pa.Table:
        """All rows (at least one) as one table, ``ids`` first; early chunks are cast to the final types."""
        if self.pending:
            self._flush()
        names = [*self.types, *self.kinds]
        table = pa.concat_tables(
            [pa.table([self._column(chunk, name) for name in names], names) for chunk in self.chunks]
        )
        return table.add_column(0, "id", pa.array(ids, type=pa.string()))

    def _column(self, chunk: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
        if name in self.types:
            return chunk[name]
        kind = self.kinds[name]
        if name not in chunk.column_names:
            return pa.nulls(chunk.num_rows, type=_ARROW_TYPES[kind])
        return _scalar_array(name, chunk[name], kind)


def _scalar_array(name: str, values: list[Any] | pa.ChunkedArray, kind: str | None) -> pa.Array | pa.ChunkedArray:
    try:
        if isinstance(values, list):
            return pa.array(values, type=_ARROW_TYPES[kind])
        return values.cast(_ARROW_TYPES[kind])
    except pa.ArrowInvalid as error:
        # Integers beyond 2**53 have no exact float64.
        raise UserError(
            f"column {name!r} mixes fractions with whole numbers too large for float64 ({error})"
        ) from error


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


def require_unicode(text: str, column: str, row: SourceRow) -> str:
    """``text`` itself.

    Raises:
        UserError: naming column and position, if it holds a lone surrogate.
    """
    if not is_unicode_text(text):
        raise UserError(f"{row.where}: column {column!r} holds a lone surrogate, which is not Unicode text; fix it")
    return text
