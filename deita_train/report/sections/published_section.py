"""The section on published figures, which a recipe names to stand beside its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deita_train.report.results.groups import Group
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.section import Section
from deita_train.report.tables.published_table import TITLE, published_table


def published_section(summary: RunSummary, groups: Sequence[Group]) -> Section | None:
    """One table; nothing where the recipe names no published figures."""
    table = published_table(summary, groups)
    if table is None:
        return None
    text = "What publications report of the models that this recipe reproduces, beside this run's own figures."
    return Section(TITLE, text, (replace(table, title=""),))
