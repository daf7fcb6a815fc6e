"""The section on what several methods select from the same pool, where the recipe has `compare:`."""

from __future__ import annotations

from collections.abc import Sequence

from deita_train.report.figures.comparison_figure import plane_of
from deita_train.report.figures.method_figures import methods_in_plane, overlap_heat_map
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.layout import Figure, Section
from deita_train.report.tables.stage_tables import Column, Table
from deita_train.selection.measures.compared import from_json
from deita_train.selection.measures.comparison_tables import shown_tables
from deita_train.selection.measures.text_table import TextTable


def comparison_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """The tables and both figures of the comparison of the recipe as written."""
    item = summary.base_cell.stages.get("compare")
    if item is None:
        return None
    comparison = from_json(item.metric("comparison"))
    names, plane = list(comparison.selections), plane_of(comparison)
    text = f"{', '.join(names)}: the rows that each method keeps of the same pool with the same budget."
    overlap = "Rows in both selections over rows in either of them (Jaccard)."
    figures = (
        Figure(
            "methods-in-plane", "Methods compared", f"{plane.upwards} against {plane.right}.", methods_in_plane(plane)
        ),
        Figure("method-overlap", "Overlap", overlap, overlap_heat_map(names, comparison.overlap)),
    )
    tables = tuple((_table(table), f"{table.title}. {table.note}".strip()) for table in shown_tables(comparison))
    return Section("Methods compared", text, tables, figures)


def _table(table: TextTable) -> Table:
    columns = (Column(table.columns[0], ""), *(Column(title) for title in table.columns[1:]))
    return Table(columns, table.rows)
