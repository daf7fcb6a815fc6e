"""Rows of local data files, counted or estimated, and the length of some of them. Imports nothing heavy."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

# Characters of a token: 1,085,024 characters of a real English pool are 271,101 tokens of Mistral-7B-v0.1.
CHARACTERS_PER_TOKEN = 4.0
# Of a file, so many rows are measured, of a Parquet file in so many of its groups; larger files are not counted.
_MEASURED, _GROUPS = 300, 5
_COUNTED_BYTES = 64 * 2**20
# Keys whose text no model reads.
_BESIDE = frozenset({"id", "from", "role", "source", "prompt_id", "dataset", "score_chosen", "score_rejected"})
_USERS = frozenset({"user", "human"})


@dataclass(frozen=True)
class Length:
    """About how many tokens a row has: all, and of those the user's; in how many turns of the user."""

    tokens: int
    of_user: int
    turns: int


@dataclass(frozen=True)
class Sample:
    """A data source's rows: their number, whether it was counted, and the lengths of some."""

    rows: int
    counted: bool
    lengths: tuple[Length, ...]


def sample_files(files: Sequence[Path]) -> Sample | None:
    """The rows of local files; None where a file is of a kind that only the run reads."""
    samples = [_of_file(file) for file in files]
    known = [sample for sample in samples if sample is not None]
    if not known or len(known) < len(samples):
        return None
    lengths = tuple(length for sample in known for length in sample.lengths)
    return Sample(sum(sample.rows for sample in known), all(sample.counted for sample in known), lengths)


def length_of(row: Mapping[str, Any]) -> Length:
    """About how long a row is, by the characters of its texts."""
    texts = [text for part in _sequences(row) for text in _texts(part, None)]
    every = sum(len(text) for _, text in texts)
    users = [text for speaker, text in texts if speaker in _USERS]
    return Length(_tokens(every), _tokens(sum(map(len, users))), max(1, len(users)))


def _sequences(row: Mapping[str, Any]) -> list[Any]:
    """What of a row is read: all of it, or the two sequences of a preference pair, each with the prompt."""
    answers = [row.get("chosen"), row.get("rejected")]
    if any(answer is None for answer in answers):
        return [row]
    if all(isinstance(answer, list) for answer in answers) and any(_is_user(answer[0]) for answer in answers if answer):
        return answers
    return [{"prompt": row.get("prompt"), "answer": answer} for answer in answers]


def _is_user(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role", message.get("from")) in _USERS


def _tokens(characters: int) -> int:
    return round(characters / CHARACTERS_PER_TOKEN)


def _texts(value: Any, speaker: str | None) -> Iterator[tuple[str | None, str]]:
    """The texts in a row with their speaker, where a message states one."""
    if isinstance(value, str):
        yield speaker, value
    elif isinstance(value, Mapping):
        stated = value.get("role", value.get("from"))
        speaker = stated if isinstance(stated, str) else speaker
        for name, part in value.items():
            if name not in _BESIDE:
                yield from _texts(part, "user" if name in ("instruction", "prompt") else speaker)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, speaker)


def _of_file(file: Path) -> Sample | None:
    name = file.name.lower()
    try:
        if name.endswith(".jsonl.gz"):
            return _of_zipped(file)
        if name.endswith(".jsonl"):
            return _of_lines(file)
        if name.endswith(".json"):
            return _of_json(file)
        if name.endswith(".csv"):
            return _of_csv(file)
        return _of_parquet(file) if name.endswith(".parquet") else None
    except (OSError, EOFError, ValueError, csv.Error, zlib.error):
        return None  # the run says what is wrong with it


def _of_lines(file: Path) -> Sample:
    """JSON Lines: counted, and measured evenly over the file; a large one is estimated by the same rows."""
    with file.open("rb") as data:
        if file.stat().st_size <= _COUNTED_BYTES:
            lines = [line for line in data if line.strip()]
            return Sample(len(lines), True, _lengths(map(json.loads, _evenly(lines))))
        lines = list(_lines_at_places(data, file.stat().st_size))
    mean = sum(map(len, lines)) / len(lines)
    return Sample(round(file.stat().st_size / mean), False, _lengths(map(json.loads, lines)))


def _lines_at_places(data: BinaryIO, size: int) -> Iterator[bytes]:
    """The lines after evenly spread places of a large file."""
    for place in range(_MEASURED):
        data.seek(place * size // _MEASURED)
        if place:
            data.readline()
        line = data.readline()
        if line.strip():
            yield line


def _of_zipped(file: Path) -> Sample | None:
    if file.stat().st_size > _COUNTED_BYTES // 4:
        return None
    with gzip.open(file, "rb") as data:
        lines = [line for line in data if line.strip()]
    return Sample(len(lines), True, _lengths(map(json.loads, _evenly(lines))))


def _of_json(file: Path) -> Sample | None:
    """A list of rows, or, as some published files are in fact, a row on each line."""
    with file.open("rb") as data:
        if data.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
            return _of_lines(file)
    if file.stat().st_size > _COUNTED_BYTES:
        return None
    rows = json.loads(file.read_text(encoding="utf-8-sig"))
    return Sample(len(rows), True, _lengths(_evenly(rows))) if isinstance(rows, list) else None


def _of_csv(file: Path) -> Sample | None:
    if file.stat().st_size > _COUNTED_BYTES:
        return None
    with file.open(encoding="utf-8-sig", newline="") as data:
        rows = list(csv.DictReader(data))
    return Sample(len(rows), True, _lengths(_evenly(rows)))


def _of_parquet(file: Path) -> Sample:
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(file)
    groups = _evenly(range(table.num_row_groups), _GROUPS)
    read = (table.iter_batches(_MEASURED // len(groups), row_groups=[group]) for group in groups)
    rows = [row for batches in read for batch in islice(batches, 1) for row in batch.to_pylist()]
    return Sample(table.metadata.num_rows, True, _lengths(rows))


def _evenly(rows: Sequence[Any], most: int = _MEASURED) -> Sequence[Any]:
    """At most so many of the rows, spread over all of them."""
    return [rows[place * len(rows) // most] for place in range(most)] if len(rows) > most else rows


def _lengths(rows: Iterable[Any]) -> tuple[Length, ...]:
    return tuple(length_of(row) for row in rows if isinstance(row, Mapping))
