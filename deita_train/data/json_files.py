"""Rows of JSON files: one object per line, an array of objects, or one object that holds the rows."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from deita_train.data.data_file import DataFile, first_character, text_lines, whole_text
from deita_train.data.source_row import SourceRow
from deita_train.errors import UserError

_WHITESPACE = re.compile(r"[ \t\r\n]*")
_SPEAKER_KEYS = frozenset({"role", "from"})
# Columns by which a lone object is a row, although another of its values may be a list of objects.
_ROW_COLUMNS = ({"instruction", "output"}, {"prompt", "completion"}, {"chosen", "rejected"})


def json_rows(file: DataFile) -> Iterator[SourceRow]:
    """The rows of a .json or .jsonl file.

    A .jsonl file has one object per line. A .json file may too, as some published ones do; or it is an array, of which
    the text is held in memory and the rows are not, or one object. A lone object holds the rows if exactly one of its
    values is a list of objects (``{"version": 1, "data": [...]}``); if it is a conversation or has the columns of one,
    it is the only row.

    Raises:
        UserError: while reading, with file and line, if the file is damaged or malformed.
    """
    if not file.suffix.startswith(".jsonl"):
        first = first_character(file)
        if first == b"[":
            return _array_rows(file)
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
            yield SourceRow(index, where, _require_object(_parse_line(line, where), where))
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


def _require_object(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    shown = json.dumps(value)[:60]
    raise UserError(f"{where}: a row must be a JSON object, this is {type(value).__name__} {shown}")


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
        return _require_object(json.loads(text), file.label)
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


def _array_rows(file: DataFile) -> Iterator[SourceRow]:
    """Decode one element at a time, so only the text is held."""
    label, text = file.label, whole_text(file)
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
