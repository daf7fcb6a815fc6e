"""The pool: conversations of one or several sources as one dataset, and the account of what was not used."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import datasets
from datasets.table import InMemoryTable

from deita_train.data.conversations import (
    FORMAT_COLUMNS,
    Format,
    Message,
    UnusableRow,
    detect_format,
    merge_roles,
    require_format,
    to_messages,
    user_turns,
)
from deita_train.data.pool_table import PoolTable, fingerprint, require_unicode
from deita_train.data.sources import SourceRow, iter_rows, source_name
from deita_train.errors import UserError

EXAMPLES_PER_REASON = 5


@dataclass(frozen=True)
class PoolSource:
    """Rows to read into a pool.

    ``name`` starts the ids of rows without one and must differ between the sources of a pool. ``format`` is one of
    ``FORMATS``, or None to let the first row decide. ``roles`` adds speakers to ``DEFAULT_ROLES``. With
    ``instruction_share`` (lo, hi) only conversations whose ``instruction_fraction`` lies in [lo, hi) are read.
    """

    name: str
    rows: Iterable[SourceRow]
    format: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    instruction_share: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.format is not None:
            require_format(self.format)
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
        revision: str | None = None,
        split: str | None = None,
        name: str | None = None,
        format: str | None = None,
        roles: Mapping[str, str] | None = None,
        instruction_share: tuple[float, float] | None = None,
    ) -> "PoolSource":
        """A source read by ``iter_rows``, named by ``source_name`` unless ``name`` is given. It can be read once."""
        rows = iter_rows(dataset, revision=revision, split=split)
        return cls(name or source_name(dataset), rows, format, roles or {}, instruction_share)


@dataclass(frozen=True)
class PoolReport:
    """What became of the rows: ``rows_in == rows_out + sum(drops.values())``.

    Attributes:
        rows_in: rows read, without those outside an instruction share.
        rows_out: rows of the pool.
        rows_outside_share: usable rows passed over because of an instruction share.
        drops: rows not used, by ``DROP_REASONS``.
        examples: for each of these reasons the first five as "where: detail".
        unknown_roles: for each speaker without a role, the number of rows it appears in.
        columns_left_out: columns of the input that are not in the pool, because they hold no scalars or because the
            pipeline writes a list of that name; ``source`` if it holds anything but strings, the source's name
            standing in for these.
        formats: the format of each source by its name.
        mean_user_turns: user messages per row of the pool.
    """

    rows_in: int
    rows_out: int
    rows_outside_share: int
    drops: dict[str, int]
    examples: dict[str, list[str]]
    unknown_roles: dict[str, int]
    columns_left_out: list[str]
    formats: dict[str, str]
    mean_user_turns: float

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def instruction_fraction(messages: Sequence[Message]) -> float:
    """A stable number in [0, 1) from the first user message: 53 bits of its SHA-256.

    All answers to one instruction share it, so that a split by fraction never separates them.
    """
    instruction = next(message["content"] for message in messages if message["role"] == "user")
    digest = hashlib.sha256(instruction.encode("utf-8")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def build_pool(sources: Sequence[PoolSource]) -> tuple[datasets.Dataset, PoolReport]:
    """Merge ``sources``, in their order, into one dataset held in Arrow memory.

    Columns: ``id`` (str, unique), ``messages`` (list of {role, content}), ``source`` (the row's own, else the source's
    name), then every other column whose values are scalars (int beside float becomes float64; missing is null).
    An id is the row's own, else "<source name>:<row index>"; one found in several sources gets "<source name>:" in
    front in each of them, whatever their order.

    Raises:
        UserError: if two sources have one name, an id repeats within a source, a column's type changes, no format
            fits, or not one row is usable.
    """
    names = [source.name for source in sources]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated or not names:
        raise UserError(f"the sources of a pool need different names, got {names}; name them apart")
    builder = _PoolBuilder()
    for source in sources:
        builder.read(source)
    return builder.finish()


class _PoolBuilder:
    """Reads sources one after the other into Arrow chunks and counts."""

    def __init__(self) -> None:
        self.table = PoolTable()
        self.positions: dict[str, dict[str, str]] = {}  # source name -> id -> where
        self.formats: dict[str, str] = {}
        self.rows_in = 0
        self.rows_outside_share = 0
        self.user_turns = 0
        self.drops: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.unknown_roles: Counter[str] = Counter()

    def read(self, source: PoolSource) -> None:
        roles = merge_roles(source.roles)
        format: Format | None = None
        self.positions[source.name] = {}
        for row in source.rows:
            if format is None:
                format = require_format(source.format) if source.format else _detect_format(row)
                self.formats[source.name] = format
            try:
                messages = to_messages(row.row, format, roles)
            except UnusableRow as verdict:
                self._drop(row, verdict)
                continue
            if _in_share(messages, source.instruction_share):
                self._keep(source, row, messages, format)
            else:
                self.rows_outside_share += 1

    def _drop(self, row: SourceRow, verdict: UnusableRow) -> None:
        self.rows_in += 1
        self.drops[verdict.reason] += 1
        self.unknown_roles.update(verdict.unknown_roles)
        examples = self.examples.setdefault(verdict.reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            examples.append(f"{row.where}: {verdict.detail}")

    def _keep(self, source: PoolSource, row: SourceRow, messages: list[Message], format: Format) -> None:
        self.rows_in += 1
        self.user_turns += len(user_turns(messages))
        identifier = _row_id(source.name, row)
        positions = self.positions[source.name]
        if identifier in positions:
            raise UserError(
                f"id {identifier!r} is used twice in source {source.name!r}: at {positions[identifier]} and"
                f" {row.where}; make the ids unique, or remove the column 'id' to number the rows"
            )
        positions[identifier] = row.where
        if not isinstance(row.row.get("source"), str | None):
            self.table.left_out.add("source")
        self.table.append(row, messages, _row_source(source.name, row), {"id", "source", *FORMAT_COLUMNS[format]})

    def finish(self) -> tuple[datasets.Dataset, PoolReport]:
        rows_out = sum(map(len, self.positions.values()))
        assert self.rows_in == rows_out + self.drops.total()
        if rows_out == 0:
            raise UserError(self._nothing_usable())
        table = self.table.finish(unique_ids(self.positions))
        assert table.num_rows == rows_out
        report = PoolReport(
            rows_in=self.rows_in,
            rows_out=rows_out,
            rows_outside_share=self.rows_outside_share,
            drops=dict(self.drops),
            examples=self.examples,
            unknown_roles=dict(self.unknown_roles),
            columns_left_out=sorted(self.table.left_out),
            formats=self.formats,
            mean_user_turns=self.user_turns / rows_out,
        )
        # Left to itself, datasets would pickle the whole table to find a fingerprint.
        return datasets.Dataset(InMemoryTable(table), fingerprint=fingerprint(table)), report

    def _nothing_usable(self) -> str:
        lines = [
            f"none of the {self.rows_in} rows of {', '.join(self.positions)} can be used"
            f" ({self.rows_outside_share} more lie outside the instruction share)"
        ]
        for reason, count in self.drops.most_common():
            lines.append(f"  {reason}: {count}, first {'; '.join(self.examples[reason])}")
        lines.append("check that format and roles suit the data")
        return "\n".join(lines)


def _detect_format(row: SourceRow) -> Format:
    try:
        return detect_format(row.row)
    except UserError as error:
        raise UserError(f"{row.where}: {error}") from error


def _in_share(messages: Sequence[Message], share: tuple[float, float] | None) -> bool:
    return share is None or share[0] <= instruction_fraction(messages) < share[1]


def _row_id(name: str, row: SourceRow) -> str:
    own = row.row.get("id")
    if own is None:
        return f"{name}:{row.index}"
    if type(own) not in (str, int) or own == "":
        raise UserError(f"{row.where}: id {own!r} is no id; a non-empty string, an integer or null is allowed")
    return require_unicode(str(own), "id", row)


def _row_source(name: str, row: SourceRow) -> str:
    own = row.row.get("source")
    return require_unicode(own, "source", row) if isinstance(own, str) else name


def unique_ids(ids_by_source: Mapping[str, Iterable[str]]) -> list[str]:
    """The ids of all sources in order, those found in several sources with "<source name>:" in front.

    Raises:
        UserError: if even so an id is there twice (a source holds an id that looks like another's prefixed one).
    """
    counts = Counter(identifier for ids in ids_by_source.values() for identifier in ids)
    unique = [
        f"{name}:{identifier}" if counts[identifier] > 1 else identifier
        for name, ids in ids_by_source.items()
        for identifier in ids
    ]
    if len(set(unique)) < len(unique):
        repeated = next(identifier for identifier, count in Counter(unique).items() if count > 1)
        raise UserError(f"id {repeated!r} is used twice in the merged pool; rename a source or the row")
    return unique
