"""Rows of JSON files: one object per line, an array of objects, or one object that holds the rows."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from deita_train.data.data_file import DataFile, first_character, text_lines, whole_text
from deita_train.data.json_arrays import array_rows, require_object
from deita_train.data.source_row import SourceRow
from deita_train.errors import UserError

_SPEAKER_KEYS = frozenset({"role", "from"})
# Columns by which a lone object is a row, although another of its values may be a list of objects.
_ROW_COLUMNS = ({"instruction", "output"}, {"prompt", "completion"}, {"chosen", "rejected"})


def json_rows(file: DataFile) -> Iterator[SourceRow]:
    """The rows of a .json or .jsonl file.

    A .jsonl file has one object per line. A .json file may too, as some published ones do; or it is an array, or one
    object, which is held in memory. A lone object holds the rows if exactly one of its values is a list of objects
    (``{"version": 1, "data": [...]}``); if it is a conversation or has the columns of one, it is the only row.

    Raises:
        UserError: while reading, with file and line, if the file is damaged or malformed.
    """
    if not file.suffix.startswith(".jsonl"):
        first = first_character(file)
        if first == b"[":
            return array_rows(file)
        if first == b"{" and _is_one_object(file):
            return _object_rows(file)
    return _line_rows(file)


def _is_one_object(file: DataFile) -> bool:
    """Whether the first line is no whole object, or the only one."""
    filled = list(islice((line for line in text_lines(file) if line.strip()), 2))
    try:
        json.loads(filled[0])
    except (ValueError, RecursionError):
        return True
    return len(filled) == 1


def _line_rows(file: DataFile) -> Iterator[SourceRow]:
    index = 0
    for number, line in enumerate(text_lines(file), start=1):
        if line.strip():
            where = f"{file.label}:{number}"
            yield SourceRow(index, where, require_object(_parse_line(line, where), where))
            index += 1


def _parse_line(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8").rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: malformed JSON: {error.msg} at column {error.colno}; each line must be one whole object"
            " (an array of objects belongs in a .json file and starts with '[')"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as UTF-8 JSON: {error}; fix or remove this line") from error


def _object_rows(file: DataFile) -> Iterator[SourceRow]:
    value = _whole_object(file)
    if _is_row(value):
        yield SourceRow(0, f"{file.label}, row 0", value)
        return
    held = [name for name, rows in value.items() if _is_list_of_objects(rows)]
    if len(held) > 1:
        raise UserError(
            f"{file.label}: one object with several lists of objects, {', '.join(map(repr, held))}; which of them are "
            "the rows? Write each to a file of its own"
        )
    for index, row in enumerate(value[held[0]] if held else [value]):
        yield SourceRow(index, f"{file.label}, row {index}", row)


def _whole_object(file: DataFile) -> dict[str, Any]:
    text = whole_text(file)
    try:
        return require_object(json.loads(text), file.label)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file.label}:{error.lineno}: malformed JSON: {error.msg} at column {error.colno}; a .json file is an "
            "array, one object, or one object per line; fix it, or write or download it again"
        ) from error
    except RecursionError as error:
        raise UserError(
            f"{file.label}: not readable as JSON: {error}; write the rows as one object per line"
        ) from error


def _is_row(value: dict[str, Any]) -> bool:
    return any(columns <= value.keys() for columns in _ROW_COLUMNS) or any(map(_is_conversation, value.values()))


def _is_conversation(value: Any) -> bool:
    return _is_list_of_objects(value) and not _SPEAKER_KEYS.isdisjoint(value[0])


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
