"""Raw rows from a file, a ``save_to_disk`` folder or the Hub, each with its position."""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from deita_train.data.suffixes import SUFFIXES, data_suffix
from deita_train.errors import UserError

ROWS_PER_BATCH = 1000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_WHITESPACE = re.compile(r"[ \t\r\n]*")
_BROKEN_FILE = (OSError, EOFError, zlib.error, pa.ArrowException)
# What datasets and the Hub client raise: not found, gated, offline, unknown split, several configurations, bad files.
_HUB_FAILURES = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)


@dataclass(frozen=True)
class SourceRow:
    """One raw row: ``index`` from 0; ``where`` is "<file>:<line>" (from 1) or "<dataset>, row <index>"."""

    index: int
    where: str
    row: dict[str, Any]


def iter_rows(dataset: str, *, revision: str | None = None, split: str | None = None) -> Iterator[SourceRow]:
    """Read ``dataset`` row by row, in order.

    A .json file may hold an array of objects or, like some published ones, one object per line. Blank lines are
    skipped but counted in ``where``. Parquet files and datasets are read 1,000 rows at a time; of a JSON array the text
    is held in memory, the rows are not.

    Args:
        dataset: a file with one of ``SUFFIXES``, a folder written by ``save_to_disk``, or a Hub id ("owner/name").
        revision: a Hub commit, tag or branch; only for a Hub id.
        split: only for a Hub id or a saved ``DatasetDict``; required if there are several.

    Raises:
        UserError: at once if ``dataset`` neither exists nor is a Hub id; while reading if it is damaged, empty,
            malformed, or not available from the Hub.
    """
    path = _local_path(dataset)
    if path is None:
        return _refuse_no_rows(_iter_hub(dataset, revision, split), dataset)
    if revision is not None:
        raise UserError(f"{dataset}: revision {revision!r} was given, but a local dataset has none; leave it out")
    if path.is_dir():
        return _refuse_no_rows(_iter_saved(path, dataset, split), dataset)
    if split is not None:
        raise UserError(f"{dataset}: split {split!r} was given, but a file has no splits; leave it out")
    return _refuse_no_rows(_iter_file(path, dataset), dataset)


def source_name(dataset: str) -> str:
    """The prefix of ids: a file's name without its suffixes, a folder's name, or the Hub id."""
    path = _local_path(dataset)
    if path is None:
        return dataset
    name = path.resolve().name
    suffix = data_suffix(name)
    return name if path.is_dir() or suffix is None else name[: -len(suffix)]


def _local_path(dataset: str) -> Path | None:
    """The existing path that ``dataset`` names, or None for a Hub id."""
    path = Path(dataset).expanduser()
    if dataset and path.exists():
        return path
    if dataset.startswith((".", "/", "~")) or data_suffix(dataset) is not None:
        raise UserError(f"dataset {dataset!r}: there is no such file or folder; correct the path")
    if _HUB_ID.fullmatch(dataset) is None:
        raise UserError(f"dataset {dataset!r} is neither an existing file or folder nor a Hub id such as 'owner/name'")
    return None


def _refuse_no_rows(rows: Iterator[SourceRow], dataset: str) -> Iterator[SourceRow]:
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    if is_empty:
        raise UserError(f"{dataset}: holds no rows; check that it was written or downloaded completely")


def _iter_file(path: Path, label: str) -> Iterator[SourceRow]:
    suffix = data_suffix(path.name)
    if suffix is None:
        raise UserError(f"{label}: a data file ends in one of {', '.join(SUFFIXES)}; convert or rename it")
    if suffix == ".parquet":
        return _iter_parquet(path, label)
    if suffix.startswith(".jsonl") or _first_character(path, label) != b"[":
        return _iter_json_lines(path, label)
    return _iter_json_array(path, label)


def _open_binary(path: Path) -> io.BufferedIOBase:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    if path.suffix.lower() == ".zst":
        # Not zstandard's stream reader: it ends a truncated stream silently; Arrow's raises.
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _damaged(where: str, error: Exception) -> UserError:
    return UserError(f"{where}: cannot be read, damaged or incomplete ({error}); download or write the file again")


def _first_character(path: Path, label: str) -> bytes:
    """The first byte after whitespace and a byte order mark; empty if there is none."""
    try:
        with _open_binary(path) as stream:
            while block := stream.read(4096):
                if text := block.removeprefix(codecs.BOM_UTF8).lstrip():
                    return text[:1]
    except _BROKEN_FILE as error:
        raise _damaged(label, error) from error
    return b""


def _read_lines(path: Path, label: str) -> Iterator[bytes]:
    number = 0
    try:
        with _open_binary(path) as stream:
            for number, line in enumerate(stream, start=1):
                yield line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except _BROKEN_FILE as error:
        raise _damaged(f"{label}:{number + 1}", error) from error


def _iter_json_lines(path: Path, label: str) -> Iterator[SourceRow]:
    index = 0
    for number, line in enumerate(_read_lines(path, label), start=1):
        if line.strip():
            where = f"{label}:{number}"
            yield SourceRow(index, where, _require_object(_parse_line(line, where), where))
            index += 1


def _parse_line(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: malformed JSON: {error.msg} at column {error.colno}; each line must be one whole object"
            " (an array of objects belongs in a .json file and starts with '[')"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as UTF-8 JSON: {error}; fix or remove this line") from error


def _require_object(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    shown = json.dumps(value)[:60]
    raise UserError(f"{where}: a row must be a JSON object, this is {type(value).__name__} {shown}")


def _iter_json_array(path: Path, label: str) -> Iterator[SourceRow]:
    """Decode one element at a time, so only the text is held."""
    text = _read_text(path, label)
    position = _skip_whitespace(text, _skip_whitespace(text, 0) + 1)
    is_closed = text[position : position + 1] == "]"
    index = 0
    while not is_closed:
        start = position
        value, position = _decode_element(text, start, label)
        where = f"{label}, row {index}"
        if not isinstance(value, dict):
            where = f"{label}:{text.count(chr(10), 0, start) + 1}, row {index}"
        yield SourceRow(index, where, _require_object(value, where))
        index += 1
        position, is_closed = _after_element(text, position, label)
    end = _skip_whitespace(text, position + 1)
    if end != len(text):
        raise _malformed(json.JSONDecodeError("Extra data after the array", text, end), label)


def _read_text(path: Path, label: str) -> str:
    content = b"".join(_read_lines(path, label))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{label}:{line}: not UTF-8: {error.reason}; convert the file to UTF-8") from error


def _skip_whitespace(text: str, position: int) -> int:
    match = _WHITESPACE.match(text, position)
    return position if match is None else match.end()


def _decode_element(text: str, position: int, label: str) -> tuple[Any, int]:
    try:
        return json.JSONDecoder().raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise _malformed(error, label) from error
    except (ValueError, RecursionError) as error:
        line = text.count("\n", 0, position) + 1
        raise UserError(f"{label}:{line}: not readable as JSON: {error}; fix or remove this row") from error


def _after_element(text: str, position: int, label: str) -> tuple[int, bool]:
    """The position of the next element and False, or of the closing bracket and True."""
    position = _skip_whitespace(text, position)
    delimiter = text[position : position + 1]
    if delimiter == "]":
        return position, True
    if delimiter != ",":
        raise _malformed(json.JSONDecodeError("Expecting ',' or ']'", text, position), label)
    return _skip_whitespace(text, position + 1), False


def _malformed(error: json.JSONDecodeError, label: str) -> UserError:
    return UserError(
        f"{label}:{error.lineno}: malformed JSON array: {error.msg} at column {error.colno};"
        " fix the file, or write or download it again"
    )


def _iter_parquet(path: Path, label: str) -> Iterator[SourceRow]:
    index = 0
    try:
        with closing(pq.ParquetFile(path)) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
                for row in batch.to_pylist():
                    yield SourceRow(index, f"{label}, row {index}", row)
                    index += 1
    except _BROKEN_FILE as error:
        raise _damaged(f"{label}, after row {index}" if index else label, error) from error


def _iter_dataset(dataset: datasets.Dataset, label: str) -> Iterator[SourceRow]:
    index = 0
    # The arrow format leaves images and audio undecoded.
    for table in dataset.with_format("arrow").iter(batch_size=ROWS_PER_BATCH):
        for row in table.to_pylist():
            yield SourceRow(index, f"{label}, row {index}", row)
            index += 1


def _iter_saved(path: Path, label: str, split: str | None) -> Iterator[SourceRow]:
    try:
        saved = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise UserError(
            f"{label}: this folder was not written by save_to_disk ({error}); name a data file inside it, or save it so"
        ) from error
    except (*_BROKEN_FILE, ValueError, KeyError) as error:
        raise _damaged(label, error) from error
    if isinstance(saved, datasets.DatasetDict):
        yield from _iter_dataset(saved[_choose_split(list(saved), split, label)], label)
    elif split is not None:
        raise UserError(f"{label}: split {split!r} was given, but this folder holds one dataset; leave it out")
    else:
        yield from _iter_dataset(saved, label)


def _choose_split(splits: list[str], split: str | None, label: str) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if split is None:
        raise UserError(f"{label}: it has the splits {', '.join(splits)}; state one as split")
    if split not in splits:
        raise UserError(f"{label}: there is no split {split!r}; it has {', '.join(splits)}")
    return split


def _iter_hub(dataset: str, revision: str | None, split: str | None) -> Iterator[SourceRow]:
    try:
        known_splits = datasets.load_dataset_builder(dataset, revision=revision).info.splits
        if split is None and known_splits:
            # Before the download, which may be large.
            split = _choose_split(list(known_splits), None, dataset)
        loaded = datasets.load_dataset(dataset, revision=revision, split=split)
    except UserError:
        raise
    except _HUB_FAILURES as error:
        raise _hub_error(dataset, revision, split, error) from error
    if isinstance(loaded, datasets.DatasetDict):
        loaded = loaded[_choose_split(list(loaded), None, dataset)]
    yield from _iter_dataset(loaded, dataset)


def _hub_error(dataset: str, revision: str | None, split: str | None, error: Exception) -> UserError:
    asked = "".join(f", {name} {value!r}" for name, value in (("revision", revision), ("split", split)) if value)
    if isinstance(error, ConnectionError):
        advice = "connect to the network or unset HF_HUB_OFFLINE, or download the data and give the path of the file"
    elif isinstance(error, datasets.exceptions.DatasetNotFoundError):
        advice = "correct the name or revision; log in with 'hf auth login' if it is private or gated"
    else:
        advice = "correct the name, or download the data file you want and give its path"
    kind = type(error).__name__
    return UserError(
        f"dataset {dataset!r}{asked}: no such local path, and the Hub cannot serve it ({kind}: {error}); {advice}"
    )
