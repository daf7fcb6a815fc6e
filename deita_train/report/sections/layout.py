"""What a report is made of, as data that both templates render: sections with tables, figures and texts."""

from __future__ import annotations

from dataclasses import dataclass, field

from deita_train.report.tables.stage_tables import Table


@dataclass(frozen=True)
class Figure:
    """A drawn panel: its file's name, its title, and sentences that say what it shows."""

    name: str
    title: str
    text: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A section in its fixed order: introduction, tables with their explanation, figures, quoted texts, folded text.

    ``links`` are files of the report's folder, each with the text of its link.
    """

    title: str
    text: str
    tables: tuple[tuple[Table, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    quotes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    folded: str = field(default="")

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return self.title.lower().replace(" ", "-")
