"""Rows of local data files, counted or estimated, and the length of some of them. Imports nothing heavy."""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

# Characters of a token: 1,085,024 characters of a real English pool are 271,101 tokens of Mistral-7B-v0.1.
CHARACTERS_PER_TOKEN = 4.0
# Of a file, as many rows are measured, from its beginning; larger files are not counted but estimated by their size.
_MEASURED = 300
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
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _of_lines(file, _json_rows)
    if name.endswith(".json"):
        return _of_json(file)
    if name.endswith(".csv"):
        return _of_lines(file, lambda lines: csv.DictReader(lines), head=1)
    return _of_parquet(file) if name.endswith(".parquet") else None


def _json_rows(lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if line.strip():
            yield json.loads(line)


def _of_lines(file: Path, rows_of: Any, head: int = 0) -> Sample | None:
    zipped = file.suffix == ".gz"
    try:
        with gzip.open(file, "rt", encoding="utf-8-sig") if zipped else file.open(encoding="utf-8-sig") as lines:
            rows = list(islice(rows_of(iter(lines)), _MEASURED))
        lengths = tuple(length_of(row) for row in rows if isinstance(row, Mapping))
        if len(rows) < _MEASURED:
            return Sample(len(rows), True, lengths)
        if not zipped and file.stat().st_size <= _COUNTED_BYTES and not head:
            with file.open("rb") as data:
                return Sample(sum(1 for line in data if line.strip()), True, lengths)
        read = sum(len(json.dumps(row, ensure_ascii=False).encode()) for row in rows)
    except (OSError, ValueError, csv.Error, UnicodeError):
        return None  # the run says what is wrong with it
    return None if zipped else Sample(round(file.stat().st_size * len(rows) / read), False, lengths)


def _of_json(file: Path) -> Sample | None:
    """A list of rows, or, as some published files are in fact, a row on each line."""
    try:
        with file.open(encoding="utf-8-sig") as data:
            first = data.read(1024).lstrip()[:1]
        if first == "{":
            return _of_lines(file, _json_rows)
        if file.stat().st_size > _COUNTED_BYTES:
            return None
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    if not isinstance(rows, list):
        return None
    return Sample(len(rows), True, tuple(length_of(row) for row in rows[:_MEASURED] if isinstance(row, Mapping)))


def _of_parquet(file: Path) -> Sample | None:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        table = ParquetFile(file)
        batch = next(table.iter_batches(batch_size=_MEASURED), None)
        rows = [] if batch is None else batch.to_pylist()
        return Sample(table.metadata.num_rows, True, tuple(map(length_of, rows)))
    except (OSError, ArrowException):
        return None
