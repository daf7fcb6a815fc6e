"""The pool: conversations from one or several sources as one dataset, and the account of unused rows."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import datasets
import numpy as np

from deita_train.data.conversations import (
    Conversation,
    UnusableRow,
    detect_format,
    merge_roles,
    require_format,
    to_conversation,
)
from deita_train.data.drawing import Draw, drawn_from_sources
from deita_train.data.intake import Account, IntakeReport, RowIds, RowSource, chosen_format
from deita_train.data.json_text import JSON_TYPE
from deita_train.data.row_table import MESSAGES_TYPE, RowTable, as_dataset
from deita_train.data.sources import SourceRow
from deita_train.data.spilled import filtered
from deita_train.data.texts import TextColumn, TextIndex
from deita_train.errors import UserError

RESERVED_COLUMNS = ("complexity_scores", "quality_scores", "embedding")
"""Columns that later stages write; input columns with these names are never copied."""


class PoolSource(RowSource):
    """Rows to read into a pool: ``format`` is one of ``FORMATS``; source names must be unique within a pool."""

    def __post_init__(self) -> None:
        if self.format is not None:
            require_format(self.format)
        super().__post_init__()


@dataclass(frozen=True)
class PoolReport(IntakeReport):
    """What became of the rows; ``drops`` by ``DROP_REASONS``, and ``not_sampled``: usable, but not drawn.

    Attributes:
        formats: the format of each source by its name.
        mean_user_turns: user messages per row of the pool.
    """

    formats: dict[str, str]
    mean_user_turns: float


def build_pool(sources: Sequence[PoolSource]) -> tuple[datasets.Dataset, PoolReport]:
    """Merge ``sources``, in their order, into one dataset held in Arrow memory.

    Columns: ``id`` (str, unique), ``messages`` (list of {role, content}, or of JSON objects if any message has further
    fields), ``source`` (the row's own, else the source's name), ``tools`` (JSON) if a row has schemas of tools, then
    every other column, typed as ``RowTable`` says; missing is null. An id is the row's own, else
    "<source name>:<row index>"; an id found in several sources is prefixed with "<source name>:" in each of them,
    whatever their order.

    Raises:
        UserError: if two sources have the same name, an id repeats within a source, no format fits, or no row is
            usable.
    """
    names = [source.name for source in sources]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated or not names:
        raise UserError(f"the sources of a pool need different names, got {names}; rename a file or folder")
    builder = _PoolBuilder()
    for source in sources:
        builder.read(source)
    return builder.finish()


class _PoolBuilder:
    """Reads sources one after another into Arrow chunks, counting rows."""

    def __init__(self) -> None:
        self.table = RowTable({"messages": MESSAGES_TYPE, "tools": JSON_TYPE}, RESERVED_COLUMNS)
        self.ids: dict[str, RowIds] = {}
        self.formats: dict[str, str] = {}
        self.draws: dict[str, Draw | None] = {}
        self.user_turns = array("i")  # of each row
        self.account = Account()

    def read(self, source: PoolSource) -> None:
        roles = merge_roles(source.roles)
        rows: Iterable[SourceRow] = source.rows
        if source.format is None:
            format, rows = chosen_format(rows, partial(detect_format, needs_answer=source.needs_answer))
        else:
            format = require_format(source.format)
        self.formats[source.name] = format
        self.ids[source.name] = RowIds(source.name)
        self.draws[source.name] = source.draw
        for row in rows:
            try:
                conversation = to_conversation(row.row, format, roles, needs_answer=source.needs_answer)
                if source.wants(conversation.messages):
                    self._keep(source, row, conversation)
                else:
                    self.account.rows_outside_share += 1
            except UnusableRow as verdict:
                self.account.drop(row, verdict)

    def _keep(self, source: PoolSource, row: SourceRow, conversation: Conversation) -> None:
        messages = conversation.messages
        columns = self.table.own_columns(row, conversation.consumed)
        self.ids[source.name].add(row)
        self.table.append({"messages": messages, "tools": conversation.tools}, columns, source.name, row.where)
        self.user_turns.append([message["role"] for message in messages].count("user"))
        self.account.keep(messages, conversation.num_left_out, conversation.kept_aside)

    def finish(self) -> tuple[datasets.Dataset, PoolReport]:
        ids = {name: of_source.ids for name, of_source in self.ids.items()}
        self.ids.clear()
        rows_out = sum(map(len, ids.values()))
        if rows_out == 0:
            raise self.account.nothing_usable(ids)
        table = self.table.finish(unique_ids(ids).column)
        assert table.num_rows == rows_out
        num_turns = np.frombuffer(self.user_turns, np.int32)
        drawn = drawn_from_sources(self.draws, ids)
        if drawn is not None:
            table, num_turns = filtered(table, drawn), num_turns[drawn]
            self.account.drops["not_sampled"] = rows_out - table.num_rows
        report = PoolReport(
            **self.account.closed(table.num_rows, self.table.left_out, self.table.json_columns),
            formats=self.formats,
            mean_user_turns=float(num_turns.mean()),
        )
        return as_dataset(table), report


def unique_ids(ids_by_source: Mapping[str, TextColumn]) -> TextColumn:
    """The ids of all sources in order; those found in several sources are prefixed with "<source name>:".

    Args:
        ids_by_source: unique within each source.

    Raises:
        UserError: if an id is still repeated (a source has an id that looks like another's prefixed one).
    """
    if len(ids_by_source) == 1:
        return next(iter(ids_by_source.values()))
    index = TextIndex()
    numbers = array("i", map(index.add, chain.from_iterable(ids_by_source.values())))
    is_shared = np.bincount(numbers) > 1
    unique, following = TextIndex(), iter(numbers)
    for name, ids in ids_by_source.items():
        for identifier in ids:
            prefixed = f"{name}:{identifier}" if is_shared[next(following)] else identifier
            before = len(unique)
            if unique.add(prefixed) < before:
                raise UserError(f"id {prefixed!r} is used twice in the merged pool; rename a source or the row")
    return unique.texts.column()
