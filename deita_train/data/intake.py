"""Shared by everything that reads raw rows into a table: sources, ids, and the account of unused rows."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any, Self, TypeVar, Unpack

from deita_train.data.conversations import ROLES, Message, UnusableRow, merge_roles
from deita_train.data.drawing import Draw
from deita_train.data.messages import KNOWN_FIELDS
from deita_train.data.places import source_name
from deita_train.data.plain_values import is_unicode_text
from deita_train.data.sources import ReadOptions, SourceRow, iter_rows
from deita_train.data.texts import GrowingTexts, TextColumn, TextIndex
from deita_train.errors import UserError

EXAMPLES_PER_REASON = 5
ROWS_THAT_DECIDE = 100
RowFormat = TypeVar("RowFormat", bound=str)


def instruction_fraction(messages: Sequence[Message]) -> float:
    """A stable number in [0, 1) from the first user message: 53 bits of its SHA-256.

    All answers to one instruction share it, so that a split by fraction never separates them.
    """
    instruction = next(message["content"] for message in messages if message["role"] == "user")
    digest = hashlib.sha256(instruction.encode("utf-8")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


@dataclass(frozen=True)
class RowSource:
    """Rows to read, and how.

    Attributes:
        name: prefix of the ids of rows without one.
        rows: the raw rows.
        format: None to let the first rows decide (``chosen_format``).
        roles: speakers in addition to ``DEFAULT_ROLES``.
        instruction_share: (lo, hi) to read only rows whose ``instruction_fraction`` lies in [lo, hi).
        draw: how many of the usable rows to draw; None for all.
        needs_answer: whether a row in which nobody answers is unusable.
    """

    name: str
    rows: Iterable[SourceRow]
    format: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    instruction_share: tuple[float, float] | None = None
    draw: Draw | None = None
    needs_answer: bool = True

    def __post_init__(self) -> None:
        merge_roles(self.roles)
        if self.instruction_share is not None:
            low, high = self.instruction_share
            if not 0 <= low < high <= 1:
                raise UserError(f"source {self.name!r}: instruction_share [{low}, {high}) must lie within [0, 1]")

    @classmethod
    def from_dataset(
        cls,
        dataset: str,
        *,
        name: str | None = None,
        format: str | None = None,
        roles: Mapping[str, str] | None = None,
        instruction_share: tuple[float, float] | None = None,
        draw: Draw | None = None,
        needs_answer: bool = True,
        **read: Unpack[ReadOptions],
    ) -> Self:
        """A source read by ``iter_rows``, named by ``source_name`` unless ``name`` is given. It can be read once."""
        rows = iter_rows(dataset, **read)
        return cls(name or source_name(dataset), rows, format, roles or {}, instruction_share, draw, needs_answer)

    def wants(self, messages: Sequence[Message]) -> bool:
        """Whether a conversation lies within the instruction share."""
        share = self.instruction_share
        return share is None or share[0] <= instruction_fraction(messages) < share[1]


@dataclass(frozen=True)
class IntakeReport:
    """What became of the rows: ``rows_in == rows_out + sum(drops.values())``.

    Attributes:
        rows_in: rows read, without those outside an instruction share.
        rows_out: rows of the table.
        rows_outside_share: usable rows skipped because of an instruction share.
        drops: unused rows, by reason.
        examples: for each reason the first five rows, as "where: detail".
        unknown_roles: for each speaker without a role, the number of rows it appears in.
        columns_left_out: input columns that are not in the table, because the pipeline writes a column of that name
            or because they hold bytes; includes ``source`` if any of its values is not a string and was replaced by
            the source's name.
        json_columns: for each column that is kept as JSON, why.
        columns_kept_aside: for each column that would be the conversation's system message, the rows in which it is
            not, because the conversation has another or the column holds something other than text.
        message_fields: for each field of messages that no stage reads, the number of messages that have it.
        system_messages_left_out: system messages without text, which are not part of their conversations.
    """

    rows_in: int
    rows_out: int
    rows_outside_share: int
    drops: dict[str, int]
    examples: dict[str, list[str]]
    unknown_roles: dict[str, int]
    columns_left_out: list[str]
    json_columns: dict[str, str]
    columns_kept_aside: dict[str, int]
    message_fields: dict[str, int]
    system_messages_left_out: int

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


@dataclass
class Account:
    """Counts rows while they are read; same fields as ``IntakeReport``."""

    rows_in: int = 0
    rows_outside_share: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unknown_roles: Counter[str] = field(default_factory=Counter)
    columns_kept_aside: Counter[str] = field(default_factory=Counter)
    message_fields: Counter[str] = field(default_factory=Counter)
    system_messages_left_out: int = 0

    def keep(self, messages: Iterable[Mapping[str, Any]], num_left_out: int, kept_aside: Iterable[str]) -> None:
        """Count a row of the table.

        Args:
            messages: of the row.
            num_left_out: system messages that it had in addition.
            kept_aside: columns that are not its system message.
        """
        self.rows_in += 1
        self.system_messages_left_out += num_left_out
        self.columns_kept_aside.update(kept_aside)
        for message in messages:
            if len(message) > 2:
                self.message_fields.update(name for name in message if name not in KNOWN_FIELDS)

    def drop(self, row: SourceRow, verdict: UnusableRow) -> None:
        """Count an unusable row, and keep the first few of each reason as examples."""
        self.rows_in += 1
        self.drops[verdict.reason] += 1
        self.unknown_roles.update(verdict.unknown_roles)
        examples = self.examples.setdefault(verdict.reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            examples.append(f"{row.where}: {verdict.detail}")

    def closed(self, rows_out: int, columns_left_out: Iterable[str], json_columns: Mapping[str, str]) -> dict[str, Any]:
        """The fields of an ``IntakeReport`` for a table of ``rows_out`` rows."""
        assert self.rows_in == rows_out + self.drops.total()
        return {
            "rows_in": self.rows_in,
            "rows_out": rows_out,
            "rows_outside_share": self.rows_outside_share,
            "drops": dict(self.drops),
            "examples": self.examples,
            "unknown_roles": dict(self.unknown_roles),
            "columns_left_out": sorted(columns_left_out),
            "json_columns": dict(sorted(json_columns.items())),
            "columns_kept_aside": dict(self.columns_kept_aside),
            "message_fields": dict(self.message_fields),
            "system_messages_left_out": self.system_messages_left_out,
        }

    def nothing_usable(self, names: Iterable[str]) -> UserError:
        """The error for sources without a single usable row."""
        lines = [
            f"none of the {self.rows_in} rows of {', '.join(names)} can be used"
            f" ({self.rows_outside_share} more lie outside the instruction share)"
        ]
        for reason, count in self.drops.most_common():
            lines.append(f"  {reason}: {count}, first {'; '.join(self.examples[reason])}")
        if self.unknown_roles:
            speakers = ", ".join(f"{name!r}" for name, _ in self.unknown_roles.most_common(EXAMPLES_PER_REASON))
            lines.append(f"state roles: for the speakers {speakers}, each as {', '.join(ROLES[:-1])} or {ROLES[-1]}")
        lines.append("check that format and roles suit the data")
        return UserError("\n".join(lines))


def chosen_format(
    rows: Iterable[SourceRow], detect: Callable[[Mapping[str, Any]], RowFormat]
) -> tuple[RowFormat, Iterator[SourceRow]]:
    """The format that most of the first 100 rows fit, and all rows, these included; of a tie, the one seen first.

    Columns that are null in a row do not count for it, as long as any of the rows fits a format by the others.

    Args:
        rows: the rows.
        detect: gives the format of a row by its columns, or raises :class:`UserError`.

    Raises:
        UserError: naming the first row and the columns, if none of the rows fits a format.
    """
    following = iter(rows)
    first = list(islice(following, ROWS_THAT_DECIDE))
    assert first, "a source without rows is refused when it is read"
    filled = [{name: value for name, value in row.row.items() if value is not None} for row in first]
    votes = Counter(_detected(filled, detect)) or Counter(_detected([row.row for row in first], detect))
    if not votes:
        raise _fits_no_format(first, detect)
    return votes.most_common(1)[0][0], chain(first, following)


def _detected(
    rows: Iterable[Mapping[str, Any]], detect: Callable[[Mapping[str, Any]], RowFormat]
) -> Iterator[RowFormat]:
    for row in rows:
        with suppress(UserError):
            yield detect(row)


def _fits_no_format(rows: Sequence[SourceRow], detect: Callable[[Mapping[str, Any]], RowFormat]) -> UserError:
    """The error of the first row, with the columns that others of the rows have."""
    others = list(dict.fromkeys(name for row in rows for name in row.row if name not in rows[0].row))
    more = f"; of the first {len(rows)} rows, others have {', '.join(map(repr, others))}" if others else ""
    try:
        detect(rows[0].row)
    except UserError as error:
        return UserError(f"{rows[0].where}: {error}{more}")
    raise AssertionError("the first row fits a format")


class RowIds:
    """The ids of one source in order, and where each was found; both lie on disk.

    A row's id is the first of ``columns`` that it has, else "<source name>:<row index>". Values of the first column
    must be unique. Any other column names a group that rows may share (a prompt with several pairs): a repeated value
    gets the suffix ":<row index>".
    """

    def __init__(self, source: str, columns: Sequence[str] = ("id",)) -> None:
        self.source = source
        self.columns = columns
        self.index = TextIndex()
        self.positions = GrowingTexts()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> TextColumn:
        """All ids so far."""
        return self.index.texts.column()

    def add(self, row: SourceRow) -> str:
        """The id of the next row.

        Raises:
            UserError: if it is invalid or repeated.
            UnusableRow: if it holds a lone surrogate.
        """
        column = next((name for name in self.columns if row.row.get(name) is not None), None)
        identifier = f"{self.source}:{row.index}" if column is None else _own_id(row, column)
        if column in self.columns[1:] and self.index.number_of(identifier) is not None:
            identifier = f"{identifier}:{row.index}"
        number = self.index.add(identifier)
        if number < len(self.positions):
            column = column or self.columns[0]
            raise UserError(
                f"id {identifier!r} is used twice in source {self.source!r}: at {self.positions[number]} and"
                f" {row.where}; make the ids unique, or remove the column {column!r} to number the rows"
            )
        self.positions.append(row.where)
        return identifier


def _own_id(row: SourceRow, column: str) -> str:
    own = row.row[column]
    if type(own) not in (str, int) or own == "":
        raise UserError(f"{row.where}: {column} {own!r} is not an id; allowed: a non-empty string, an integer or null")
    if not is_unicode_text(str(own)):
        raise UnusableRow("not_text", f"column {column!r} holds a lone surrogate, which is not Unicode text")
    return str(own)
