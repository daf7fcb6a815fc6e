"""What a report is made of, as data that both templates render."""

from __future__ import annotations

from dataclasses import dataclass

from deita_train.report.figures.figure import Figure
from deita_train.table import Table


@dataclass(frozen=True)
class Section:
    """A section, in the order in which it is shown.

    Attributes:
        title: its heading.
        text: the introduction.
        tables: each with a note on how to read it.
        figures: its panels.
        quotes: a reason for dropping rows, and examples of the rows.
        notes: sentences that follow.
        links: the text of a link, and the file of the report's folder that it leads to.
        folded: a long text behind a click.
    """

    title: str
    text: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    quotes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    folded: str = ""

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return self.title.lower().replace(" ", "-")
