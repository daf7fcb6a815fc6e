"""What a report is made of, as data that both templates render."""

from __future__ import annotations

from dataclasses import dataclass

from deita_train.report.figures.figure import Figure
from deita_train.table import Table


@dataclass(frozen=True)
class ShownRow:
    """A row of the data as an example.

    Attributes:
        title: what it is: `rejected`.
        id: its id.
        facts: short remarks, such as its score.
        text: how it begins; a page folds up all but the beginning.
        left: how many characters follow that are not here.
    """

    title: str
    id: str
    facts: tuple[str, ...]
    text: str
    left: int


@dataclass(frozen=True)
class Examples:
    """Rows of the data side by side.

    Attributes:
        title: what they are examples of.
        note: how they were chosen.
        rows: what stands side by side, each with a remark above it that may be empty.
    """

    title: str
    note: str
    rows: tuple[tuple[str, tuple[ShownRow, ...]], ...]


@dataclass(frozen=True)
class Section:
    """A section, in the order in which it is shown.

    Attributes:
        title: its heading.
        text: the introduction.
        tables: each with a note on how to read it.
        figures: its panels.
        examples: rows of the data side by side.
        quotes: a reason for dropping rows, and examples of the rows.
        notes: sentences that follow.
        links: the text of a link, and the file of the report's folder that it leads to.
        folded: a long text behind a click.
    """

    title: str
    text: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    examples: tuple[Examples, ...] = ()
    quotes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    folded: str = ""

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return self.title.lower().replace(" ", "-")
