"""The first rows of a dataset as a small file of its own, for a rehearsal; a sample where it is out of reach."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from deita_train.data.conversations import (
    Message,
    UnusableRow,
    detect_format,
    merge_roles,
    require_format,
    to_conversation,
    to_messages,
)
from deita_train.data.hub_rows import hub_rows
from deita_train.data.intake import ROWS_THAT_DECIDE, chosen_format, instruction_fraction
from deita_train.data.pairs import detect_pair_format, read_pair, require_pair_format
from deita_train.data.places import source_name
from deita_train.data.sample_rows import sample_of
from deita_train.data.sources import SourceRow, iter_rows
from deita_train.data.suffixes import data_suffix
from deita_train.errors import MachineFault, UserError

# Most rows that are looked through for the wanted ones.
_LOOKED = 20_000
# Instructions whose answers are kept together, where they are ranked among one another.
_RANKED = 8
Row = dict[str, Any]


@dataclass(frozen=True)
class WantedRows:
    """What is wanted of a dataset.

    Attributes:
        label: of the stage that reads it, for messages.
        role: what it is read as: conversations, pairs, questions or scorer.
        dataset: as the recipe names it.
        rows: how many usable rows.
        read: what of it is read, as `ReadOptions`.
        reach: `local`, `url` (which may not answer), `stream` (the Hub answers), `cache` (only the Hub's cache does) or
            `none`.
        format: as stated.
        roles: speakers beyond the usual ones.
        instruction_share: the part of the instructions that is read; None for all.
        dimension: of a scorer's data.
        ranked: whether labels are ranked among the answers to one instruction.
        sources: values of the column `source` of which some rows are wanted each.
        needs_ids: whether the rows must have the ids that the run gives them, because other tables name them.
        columns: further columns that the recipe names, with what they hold: number, text or tags.
    """

    label: str
    role: str
    dataset: str
    rows: int
    read: Mapping[str, Any]
    reach: str
    format: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    instruction_share: tuple[float, float] | None = None
    dimension: str | None = None
    ranked: bool = False
    sources: Sequence[str] = ()
    needs_ids: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeRows:
    """A file of rows that stands in for a dataset.

    Attributes:
        file: its path.
        rows: how many it has.
        words: what they are, for the account of a rehearsal.
        ids: of the rows, where they are rows of a pool.
        is_own: whether they are the dataset's own rows.
    """

    file: str
    rows: int
    words: str
    ids: tuple[str, ...]
    is_own: bool


def write_first_rows(wanted: WantedRows, folder: Path) -> MadeRows:
    """Write the rows that stand in for a dataset into `folder`.

    Raises:
        UserError: the dataset can be reached and not be read; the message begins with the stage that reads it.
    """
    folder.mkdir(parents=True)
    if wanted.reach == "none":
        return _write_sample(wanted, folder)
    try:
        rows = list(_chosen(wanted, _raw_rows(wanted)))
    except UserError as error:
        if wanted.reach == "url" and isinstance(error, MachineFault):
            return _write_sample(wanted, folder)
        raise UserError(f"{wanted.label}: {error}") from error
    name = source_name(wanted.dataset)
    named = [_with_id(row, name) for row in rows] if wanted.needs_ids else _plain(rows)
    suffix = ".json" if (data_suffix(wanted.dataset, (".json",)) or "") == ".json" else ".jsonl"
    words = f"the first {len(rows)} rows" if _is_contiguous(rows) else f"{len(rows)} of the first rows"
    return _written(folder / f"{Path(name).name}{suffix}", named, words, is_own=True)


def _raw_rows(wanted: WantedRows) -> Iterator[SourceRow]:
    """The dataset's rows; those of the Hub are streamed where it answers."""
    if wanted.reach in ("local", "url"):
        return iter_rows(wanted.dataset, **{**wanted.read, "first_rows": None})
    named = {name: wanted.read.get(name) for name in ("revision", "split", "config")}
    files = wanted.read.get("data_files", ())
    return hub_rows(wanted.dataset, **named, data_files=files, streaming=wanted.reach == "stream")


def _chosen(wanted: WantedRows, rows: Iterator[SourceRow]) -> Iterator[SourceRow]:
    """The rows to keep, in their order."""
    if wanted.ranked:
        yield from _with_few_instructions(wanted, rows)
        return
    found: dict[str, int] = {}
    usable = 0
    for row, fits in islice(_judged(wanted, rows), _LOOKED):
        if fits is None:
            continue  # outside the share that is read
        source = str(row.row.get("source"))
        if wanted.sources and found.get(source, 0) >= wanted.rows // len(wanted.sources):
            continue
        yield row
        found[source] = found.get(source, 0) + fits
        usable += fits
        if usable >= wanted.rows:
            return


def _judged(wanted: WantedRows, rows: Iterator[SourceRow]) -> Iterator[tuple[SourceRow, bool | None]]:
    """Each row with whether it is usable; None for a row that the recipe does not read."""
    head = list(islice(rows, ROWS_THAT_DECIDE))
    following = chain(head, rows)
    if wanted.role not in ("conversations", "pairs"):
        yield from ((row, True) for row in following)
        return
    try:
        messages_of = _reader(wanted, head)
    except UserError:
        # None of these rows fits any format; the stage that reads them says so.
        yield from ((row, True) for row in following)
        return
    for row in following:
        yield row, _fits(wanted, row, messages_of)


def _reader(wanted: WantedRows, head: Sequence[SourceRow]) -> Callable[[Row], Sequence[Message]]:
    """What reads the messages of a row, by the format that is stated or that most of the first rows fit."""
    roles = merge_roles(wanted.roles)
    if wanted.role == "pairs":
        pair_form = require_pair_format(wanted.format) if wanted.format else chosen_format(head, detect_pair_format)[0]
        return lambda row: read_pair(row, pair_form, roles)[0].messages
    form = require_format(wanted.format) if wanted.format else chosen_format(head, detect_format)[0]
    return lambda row: to_conversation(row, form, roles, needs_answer=False).messages


def _fits(wanted: WantedRows, row: SourceRow, messages_of: Callable[[Row], Sequence[Message]]) -> bool | None:
    try:
        messages = messages_of(row.row)
    except UnusableRow:
        return False
    share = wanted.instruction_share
    return None if share is not None and not share[0] <= instruction_fraction(messages) < share[1] else True


def _with_few_instructions(wanted: WantedRows, rows: Iterator[SourceRow]) -> list[SourceRow]:
    """All answers to the first instructions that the recipe reads."""
    roles = merge_roles(wanted.roles)
    kept: dict[str, list[SourceRow]] = {}
    for row in islice(rows, _LOOKED):
        try:
            messages = to_messages(row.row, wanted.format or detect_format(row.row), roles)
        except (UnusableRow, UserError):
            return list(chain([row], *kept.values()))  # the stage that reads it says what is wrong
        share = wanted.instruction_share
        if share is not None and not share[0] <= instruction_fraction(messages) < share[1]:
            continue
        asked = next(message["content"] for message in messages if message["role"] == "user")
        if asked in kept or len(kept) < _RANKED:
            kept.setdefault(asked, []).append(row)
    return [row for of in kept.values() for row in of]


def _is_contiguous(rows: Sequence[SourceRow]) -> bool:
    return [row.index for row in rows] == list(range(len(rows)))


def _with_id(row: SourceRow, source: str) -> Row:
    """A row with the id that the run gives it, if it has none of its own."""
    own = {name: value for name, value in row.row.items() if not isinstance(value, bytes)}
    return own if own.get("id") is not None else {**own, "id": f"{source}:{row.index}"}


def _plain(rows: Iterable[SourceRow]) -> list[Row]:
    return [{name: value for name, value in row.row.items() if not isinstance(value, bytes)} for row in rows]


def _write_sample(wanted: WantedRows, folder: Path) -> MadeRows:
    kind, is_known = sample_of(wanted.dataset, wanted.role, wanted.format, wanted.dimension)
    rows = kind.make(wanted.rows)
    for place, row in enumerate(rows):
        row |= {name: _value(name, holds, place, len(rows), wanted) for name, holds in wanted.columns.items()}
    about = kind.words if is_known else f"{kind.words}; the dataset's own columns are not known here"
    name = Path(source_name(wanted.dataset)).name
    return _written(folder / f"{name}{kind.suffix}", rows, f"{len(rows)} sample rows ({about})", is_own=False)


def _value(name: str, holds: str, place: int, number: int, wanted: WantedRows) -> Any:
    """What a column that the recipe names holds in a row of a sample."""
    if name == "source" and wanted.sources:
        return wanted.sources[place % len(wanted.sources)]
    if holds == "tags":
        return [f"tag {place % 5}", f"tag {place % 3}"]
    return f"part {place % 2}" if holds == "text" else place / number


def _written(file: Path, rows: Sequence[Row], words: str, *, is_own: bool) -> MadeRows:
    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogatepass")
    ids = tuple(str(row["id"]) for row in rows if row.get("id") is not None)
    return MadeRows(str(file), len(rows), words, ids, is_own)


def write_matching_rows(file: str, ids: Sequence[str], folder: Path) -> MadeRows:
    """The rows of a table of scores or embeddings that belong to the rows of a small pool.

    Raises:
        UserError: the table cannot be read.
    """
    folder.mkdir(parents=True)
    wanted, kept = set(ids), []
    for row in iter_rows(file):
        if str(row.row.get("id")) in wanted:
            kept.append(row)
            wanted.discard(str(row.row["id"]))
        if not wanted:
            break
    # Without any, the first row: the stage that reads it says what is wrong.
    rows = _plain(kept or islice(iter_rows(file), 1))
    name = f"{Path(source_name(file)).name}.jsonl"
    return _written(folder / name, rows, f"the {len(kept)} rows of the small pool", is_own=True)
