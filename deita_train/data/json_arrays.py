"""The elements of a JSON array of any length, of whose text only a window is in memory."""

import json
import re
from collections.abc import Iterator
from typing import Any

from deita_train.data.data_file import DataFile, text_blocks
from deita_train.data.source_row import SourceRow
from deita_train.errors import UserError

_WHITESPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
# An error nearer to the window's end may come of a token that is not whole yet, of which -Infinity is the longest.
_LONGEST_TOKEN = 16


def array_rows(file: DataFile) -> Iterator[SourceRow]:
    """The elements of the array that a text file holds, decoded one at a time.

    Raises:
        UserError: while reading, with file and line, if the file is damaged or malformed, or an element is no object.
    """
    window = _Window(file)
    window.skip("[")
    index, is_closed = 0, window.next_character() == "]"
    while not is_closed:
        where, value = f"{file.label}, row {index}", window.value()
        if not isinstance(value, dict):
            where = f"{file.label}:{window.line_of_value}, row {index}"
        yield SourceRow(index, where, require_object(value, where))
        index += 1
        is_closed = window.next_character() == "]"
        if not is_closed:
            window.skip(",")
    window.skip("]")
    if window.next_character():
        raise window.malformed("Extra data after the array")


def require_object(value: Any, where: str) -> dict[str, Any]:
    """The value, if it is a JSON object.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, dict):
        return value
    shown = json.dumps(value)[:60]
    raise UserError(f"{where}: a row must be a JSON object, this is {type(value).__name__} {shown}")


class _Window:
    """The part of a text that is being read; what was read is let go of when more is wanted."""

    def __init__(self, file: DataFile) -> None:
        self._label = file.label
        self._blocks = text_blocks(file)
        self._text = ""
        self._start = self._position = 0  # of the last value, and up to where the text is read
        # Of the text before the window: its ends of lines, and the characters behind the last of them.
        self._lines, self._columns = 0, 0

    @property
    def line_of_value(self) -> int:
        """The line in which the last value begins, until something else is read."""
        return self._place(self._start)[0]

    def next_character(self) -> str:
        """The next character that is not white space; empty at the end of the text."""
        while True:
            match = _WHITESPACE.match(self._text, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._text) or not self._more():
                return self._text[self._position : self._position + 1]

    def skip(self, character: str) -> None:
        """Read a character that must come next.

        Raises:
            UserError: another one does.
        """
        if self.next_character() != character:
            wanted = "',' or ']'" if character == "," else f"'{character}'"
            raise self.malformed(f"Expecting {wanted}")
        self._position += 1

    def value(self) -> Any:
        """The next value.

        Raises:
            UserError: it is malformed, or cannot be read.
        """
        self.next_character()
        is_final = False
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._more():
                    continue
                raise self.malformed(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                # The whole part of a number that is cut may have too many digits for a whole number.
                if isinstance(error, ValueError) and not is_final and self._more():
                    is_final = True
                    continue
                where = f"{self._label}:{self._place(self._position)[0]}"
                raise UserError(f"{where}: not readable as JSON: {error}; fix or remove this row") from error
            # A number near the window's end may go on behind it.
            if end + _LONGEST_TOKEN <= len(self._text) or not self._more():
                self._start, self._position = self._position, end
                return value

    def malformed(self, what: str, position: int | None = None) -> UserError:
        """The text is no array at a place, or where it was read up to."""
        line, column = self._place(self._position if position is None else position)
        return UserError(
            f"{self._label}:{line}: malformed JSON array: {what} at column {column};"
            " fix the file, or write or download it again"
        )

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether more text may mend an error."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _LONGEST_TOKEN

    def _more(self) -> bool:
        """Read on, as much as is unread at least, so that a long value is not decoded many times; False at the end."""
        unread = self._text[self._position :]
        line, column = self._place(self._position)
        added: list[str] = []
        while sum(map(len, added)) < max(len(unread), 1):
            block = next(self._blocks, None)
            if block is None:
                break
            added.append(block)
        if not added:
            return False
        self._lines, self._columns = line - 1, column - 1
        self._text, self._position = "".join([unread, *added]), 0
        return True

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column of a character of the window, from 1."""
        lines = self._text.count("\n", 0, position)
        if not lines:
            return self._lines + 1, self._columns + position + 1
        return self._lines + lines + 1, position - self._text.rfind("\n", 0, position)
