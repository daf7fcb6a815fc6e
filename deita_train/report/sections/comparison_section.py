"""The section on what several methods select from the same pool, where the recipe has `compare:`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from deita_train.report.figures.comparison_figure import plane_of
from deita_train.report.figures.figure import Figure
from deita_train.report.figures.method_figures import methods_in_plane, overlap_heat_map
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.section import Section
from deita_train.selection.measures.compared import from_json
from deita_train.selection.measures.comparison_tables import shown_tables

TITLE = "Methods compared"


def comparison_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """The tables and both figures of the comparison."""
    item = summary.base_cell.stages.get("compare")
    if item is None:
        return None
    comparison = from_json(item.metric("comparison"))
    names, plane = list(comparison.selections), plane_of(comparison)
    text = f"{', '.join(names)}: the rows that each method keeps of the same pool with the same budget."
    against = f"{plane.upwards} against {plane.right}."
    overlap = "Rows in both selections over rows in either of them (Jaccard)."
    figures = (
        Figure("methods-in-plane", TITLE, against, partial(methods_in_plane, plane)),
        Figure("method-overlap", "Overlap", overlap, partial(overlap_heat_map, names, comparison.overlap)),
    )
    return Section(TITLE, text, tuple(shown_tables(comparison)), figures)
