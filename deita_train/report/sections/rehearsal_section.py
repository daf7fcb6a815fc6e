"""The mark of a rehearsal: a section that says what stood in for what, and a word on every table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deita_train.report.results.groups import Group
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.section import Section
from deita_train.store.rehearsals import MARK
from deita_train.table import PROSE, Column, Table, words

_TEXT = (
    "This is no result: models, data and endpoints were stand-ins, and numbers were made small, to see whether every "
    "stage of the recipe comes to its end. No figure on this page says anything about the recipe."
)


def rehearsal_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """What each stage had, and what the real run will have."""
    if not summary.rehearsal:
        return None
    columns = (*words("stage"), *(Column(title, PROSE) for title in ("setting", "the real run", "here")))
    rows = tuple(
        (stage.label, one.name, one.real or "nothing", one.here or "nothing")
        for stage in summary.rehearsal
        for one in stage.replaced
    )
    return Section(MARK, _TEXT, (Table(columns, rows, "What stood in for what"),))


def marked(table: Table) -> Table:
    """A table whose title says that it is a rehearsal's."""
    return replace(table, title=f"{MARK}: {table.title}" if table.title else MARK)


def marked_section(section: Section) -> Section:
    """A section whose tables say so."""
    return replace(section, tables=tuple(map(marked, section.tables)))
