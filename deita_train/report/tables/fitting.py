"""Which width a table needs, so that a page sets it as a table only where it fits, and wide ones in parts.

Widths are in em of the table's text. They are estimates on the safe side: letters as wide as those of DejaVu Sans.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

from deita_train.table import CODE, LONG, PROSE, Column, Table

# A page's style knows these widths: below its own a table's rows are set as blocks of named values.
LEVELS = (20, 26, 32, 38, 44, 50, 56, 60)
# As wide as a page on a desktop's screen and as a sheet of A4 allow.
PAGE_WIDTH = LEVELS[-1]

_LETTER, _HEADING_LETTER, _NOTE_LETTER, _CODE_LETTER = 0.62, 0.66, 0.55, 0.52
_GAP, _GAP_AFTER_NUMBERS = 1.1, 0.9
_LEAST = {PROSE: 10.0, LONG: 16.0}
# Words of no more letters stay on one line.
_SHORT_WORDS = 12
# A name of more letters may be broken after its dots, dashes and underscores.
_WHOLE_WORD = 18


def least_width(table: Table) -> float:
    """The least width at which no column of a table has to break a number or a word; long texts get theirs."""
    if is_of_texts(table):
        return _LEAST[LONG] * (len(table.columns) - 1)
    values = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    widths = [_column_width(column, texts) for column, texts in zip(table.columns, values, strict=True)]
    wider = sum(column.numeric and not after.numeric for column, after in pairwise(table.columns))
    return sum(widths) + _GAP * (len(widths) - 1) + _GAP_AFTER_NUMBERS * wider


def level(table: Table) -> int | None:
    """The first of `LEVELS` that a table fits into; None for one that no page is wide enough for."""
    width = least_width(table)
    return next((known for known in LEVELS if width <= known), None)


def parted(table: Table, named: int) -> list[Table]:
    """A table whose columns fit a page, or parts of it that do, each with the first `named` columns.

    Parts have as equal numbers of columns as possible. The title stays with each, the note with the last.
    """
    others = range(named, len(table.columns))
    parts = [table]
    for number in range(2, len(others) + 1):
        if all(least_width(part) <= PAGE_WIDTH for part in parts):
            break
        size = -(-len(others) // number)
        cuts = [others[place : place + size] for place in range(0, len(others), size)]
        parts = [_columns(table, [*range(named), *cut]) for cut in cuts]
    return [*(replace(part, note="") for part in parts[:-1]), parts[-1]]


def turned(table: Table, title: str) -> Table:
    """A table with its columns as rows; `title` is the heading of their names, which keep their notes in brackets."""
    names = [f"{column.title} ({column.note})" if column.note else column.title for column in table.columns[1:]]
    rows = tuple(
        (name, *values) for name, values in zip(names, zip(*(row[1:] for row in table.rows), strict=True), strict=True)
    )
    columns = (Column(title, ""), *(Column(row[0]) for row in table.rows))
    return replace(table, columns=columns, rows=rows)


def pieces(text: str) -> list[str]:
    """The parts of a text between which a line may end: words, and of long ones what `breakable` separates."""
    return [piece for word in text.split() for piece in parts_of(word)]


def parts_of(word: str) -> list[str]:
    """A word, or its parts up to each `.`, `_`, `/` and `-` where it is a long name such as a path."""
    return [word] if len(word) <= _WHOLE_WORD else re.findall(r"[^./_-]*[./_-]+|[^./_-]+", word)


def is_short(text: str) -> bool:
    """Whether the words of a value stay on one line."""
    return len(text) <= _SHORT_WORDS


def is_of_texts(table: Table) -> bool:
    """Whether a table has a long text above others side by side, as prompts and the answers to them are set."""
    return len(table.columns) > 1 and all(column.style == LONG for column in table.columns)


def _columns(table: Table, places: list[int]) -> Table:
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows)


def _column_width(column: Column, texts: tuple[str, ...]) -> float:
    heading = max(
        _HEADING_LETTER * _longest(pieces(column.title)),
        _NOTE_LETTER * _longest(column.note.split()),
    )
    return max(heading, *(_cell_width(column.style, text) for text in texts), 0.0)


def _cell_width(style: str, text: str) -> float:
    if style in _LEAST:
        return max(_LEAST[style], _LETTER * _longest(pieces(text)))
    if style == CODE:
        return _CODE_LETTER * _longest(pieces(text))
    if style:  # a number, of which only a bracket may move to the next line
        return _LETTER * _longest(text.split(" ("))
    return _LETTER * (len(text) if is_short(text) else _longest(pieces(text)))


def _longest(texts: list[str]) -> int:
    return max(map(len, texts), default=0)
