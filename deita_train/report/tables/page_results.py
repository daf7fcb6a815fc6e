"""The result as a page shows it: measures as rows beside a few groups, else tables of groups that fit the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deita_train.number_text import plural
from deita_train.report.results.groups import Group
from deita_train.report.results.result_measures import Measure, kept_measures, model_measures, untuned_name
from deita_train.report.results.summary import RunSummary
from deita_train.report.results.sweep_axis import sweep_of
from deita_train.report.tables.fitting import parted
from deita_train.report.tables.result_tables import fits_columns, kept_table, model_tables, name_columns
from deita_train.table import Column, Table, words

_BETTER = {"higher is better": "higher", "lower is better": "lower", "": ""}


def page_model_tables(groups: Sequence[Group]) -> list[Table]:
    """How each group's models do, beside or below the untuned model; empty where nothing was measured."""
    if fits_columns(groups):
        return _by_measure(model_measures(groups), untuned_name(groups), groups)
    return _fitted(model_tables(groups), groups)


def page_kept_tables(summary: RunSummary, groups: Sequence[Group]) -> list[Table]:
    """What each group kept, beside or below the pool; empty where nothing was selected."""
    if fits_columns(groups):
        return _by_measure(kept_measures(summary, groups), "pool", groups)
    table = kept_table(summary, groups)
    return [] if table is None else _fitted([replace(table, title="rows kept")], groups)


def _fitted(tables: Sequence[Table], groups: Sequence[Group]) -> list[Table]:
    """Tables of groups, the wide ones in parts."""
    named = len(name_columns(sweep_of(groups))) + 1  # and the number of seeds
    return [part for table in tables for part in parted(replace(table, title=table.title.capitalize()), named)]


def _by_measure(measures: Sequence[Measure], reference: str, groups: Sequence[Group]) -> list[Table]:
    """One table: a row for each quantity, a column for each group, and last what it is compared with."""
    if not measures:
        return []
    directed = any(item.direction for item in measures)
    compared = [item.reference_text(groups) for item in measures]
    columns = [*words("measure"), *(words("better") if directed else ())]
    columns += [Column(group.label, note=_seeds(group)) for group in groups]
    columns += [Column(reference)] if any(compared) else []
    rows = tuple(
        (
            item.title,
            *((_BETTER[item.direction],) if directed else ()),
            *(item.text_of(group) for group in groups),
            *((beside,) if any(compared) else ()),
        )
        for item, beside in zip(measures, compared, strict=True)
    )
    return [Table(tuple(columns), rows)]


def _seeds(group: Group) -> str:
    failed = sum(cell.failed for cell in group.cells)
    return plural(len(group.cells), "seed") + (f", {failed} failed" if failed else "")
