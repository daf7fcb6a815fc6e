"""A table as plain data: a report renders it, a command prints it, a file holds it as Markdown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUMBER, CODE, PROSE, LONG, WORDS = "number", "code", "prose", "long", ""
# Of a long text, what a page shows before a click, and what Markdown holds at all.
FOLDED_AFTER = 500


@dataclass(frozen=True)
class Column:
    """A heading, and how the values below it are set.

    Attributes:
        title: the heading.
        style: `number` (aligned right), `code` (ids and digests), `prose` (sentences), `long` (texts with line
            breaks, of which a page folds up all but the beginning), or empty for words.
        note: a remark below the heading, such as "lower is better".
    """

    title: str
    style: str = NUMBER
    note: str = ""

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.style == NUMBER


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column names the row.

    Attributes:
        columns: the headings.
        rows: one tuple of texts a row, as many as there are columns.
        title: what the table shows; may be empty.
        note: how to read it, in sentences; may be empty.
        num_references: how many leading rows are there to compare the others with.
        num_totals: how many rows at the end are over the others.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    num_references: int = 0
    num_totals: int = 0

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), f"ragged rows in {self.title!r}"

    @property
    def titles(self) -> tuple[str, ...]:
        """The headings."""
        return tuple(column.title for column in self.columns)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Table":
        """The table that `dataclasses.asdict` turned into plain data."""
        columns = tuple(Column(**column) for column in data["columns"])
        return cls(**{**data, "columns": columns, "rows": tuple(map(tuple, data["rows"]))})

    def markdown(self) -> str:
        """Title, table and note as Markdown, ending in a newline."""
        titles = [f"{column.title} ({column.note})" if column.note else column.title for column in self.columns]
        rows = (tuple(map(shown_in_markdown, row, (column.style for column in self.columns))) for row in self.rows)
        head, *body = (f"| {' | '.join(map(escape_markdown, row))} |" for row in (titles, *rows))
        ruler = f"|{'|'.join('---:' if column.numeric else '---' for column in self.columns)}|"
        title = f"**{escape_markdown(self.title)}**\n\n" if self.title else ""
        note = f"\n{escape_markdown(self.note)}\n" if self.note else ""
        return title + "\n".join([head, ruler, *body]) + "\n" + note


def words(*titles: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(title, WORDS) for title in titles)


def numbers(*titles: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(title) for title in titles)


def shown_in_markdown(text: str, style: str) -> str:
    """A text as a table in Markdown has it: a long one only begins, and says how much is left out."""
    left = len(text) - FOLDED_AFTER
    if style != LONG or left <= 0:
        return text
    return f"{text[:FOLDED_AFTER].rstrip()} [{left:,} more characters are on the page]"


def escape_markdown(text: object) -> str:
    """A text on one line, with the characters that Markdown or a table would read escaped."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", line)
