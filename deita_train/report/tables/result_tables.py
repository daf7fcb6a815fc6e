"""The result as tables: groups as rows or as columns, and what a terminal shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deita_train.number_text import count
from deita_train.report.results.groups import Group, groups_of
from deita_train.report.results.rendered import left_out_lines
from deita_train.report.results.result_measures import Measure, kept_measures, model_measures, untuned_name
from deita_train.report.results.summary import RunSummary
from deita_train.report.results.sweep_axis import Sweep, sweep_of
from deita_train.report.tables.published_table import published_table
from deita_train.report.tables.scorer_tables import scorer_table
from deita_train.report.tables.stage_tables import failure_table
from deita_train.table import Column, Table, numbers, words

# On a terminal, more groups than these are rows instead of columns.
MAX_GROUP_COLUMNS = 4
# The terminal's tables of the models: the title of each, and how the names of its quantities begin.
_MODEL_TABLES = {
    "held-out loss": ("held-out loss",),
    "preference accuracy": ("preference accuracy", "reward accuracy"),
    "preference margin": ("preference margin", "reward margin"),
}
_SCORER_COLUMNS = ("scorer", "held-out rows", "rank correlation", "mean absolute error", "mass on digits")


def kept_table(summary: RunSummary, groups: Sequence[Group]) -> Table | None:
    """What each group kept, one row per group, below the pool; None where nothing was selected."""
    return group_table(kept_measures(summary, groups), "pool", groups)


def result_tables(summary: RunSummary) -> list[Table]:
    """What the command line prints after a run: the result, how well the scorers rank, and what failed."""
    groups = groups_of(summary)
    tables = _result_by_measure(summary, groups) if fits_columns(groups) else _result_by_group(summary, groups)
    lines = left_out_lines(summary.base_cell)
    if lines:
        tables.append(Table(words("rows left out"), tuple((line,) for line in lines)))
    scorers = scorer_table(summary)
    if scorers is not None:
        wanted = [place for place, title in enumerate(scorers.titles) if title in _SCORER_COLUMNS]
        rows = tuple(tuple(row[place] for place in wanted) for row in scorers.rows)
        tables.append(Table(tuple(scorers.columns[place] for place in wanted), rows, "scorers"))
    published = published_table(summary, groups)
    if published is not None:
        tables.append(published)
    failures = failure_table(summary)
    if failures is not None:
        title = f"failed: {len(summary.failed_cells)} of {len(summary.cells)} cells"
        tables.append(replace(failures, title=title, note=""))
    return tables


def fits_columns(groups: Sequence[Group]) -> bool:
    """Whether the groups are columns of a table, and not its rows."""
    return len(groups) <= MAX_GROUP_COLUMNS and sweep_of(groups) is None


def model_tables(groups: Sequence[Group]) -> list[Table]:
    """How each group's models do, one row per group, in a table for each kind of quantity."""
    models, untuned = model_measures(groups), untuned_name(groups)
    kinds = [
        (title, [item for item in models if item.title.startswith(beginnings)])
        for title, beginnings in _MODEL_TABLES.items()
    ]
    known = tuple(beginning for beginnings in _MODEL_TABLES.values() for beginning in beginnings)
    kinds.append(("benchmarks", [item for item in models if not item.title.startswith(known)]))
    tables = [(title, group_table(measures, untuned, groups)) for title, measures in kinds]
    return [_titled(title, table) for title, table in tables if table is not None]


def _result_by_measure(summary: RunSummary, groups: Sequence[Group]) -> list[Table]:
    """One table: one row per quantity, one column per group."""
    named = [(item, "pool") for item in kept_measures(summary, groups)]
    named += [(item, untuned_name(groups)) for item in model_measures(groups)]
    if not named:
        return []
    columns = (*words(""), *numbers(*(group.label for group in groups), "for comparison"))
    rows = [
        (item.title, *(item.text_of(group) for group in groups), _named_reference(item, name, groups))
        for item, name in named
    ]
    seeds = ("seeds", *(seeds_text(group) for group in groups), "")
    return [Table(columns, (*rows, seeds), "result")]


def _result_by_group(summary: RunSummary, groups: Sequence[Group]) -> list[Table]:
    """Several tables, each narrow enough for a terminal: one row per group, one column per quantity."""
    kept = kept_table(summary, groups)
    return [*model_tables(groups), *([_titled("kept rows", kept)] if kept is not None else [])]


def _titled(title: str, table: Table) -> Table:
    """A table whose columns do not repeat its title."""
    columns = tuple(replace(column, title=column.title.removeprefix(f"{title} ")) for column in table.columns)
    return replace(table, columns=columns, title=title)


def _named_reference(item: Measure, name: str, groups: Sequence[Group]) -> str:
    reference = item.reference_text(groups)
    return f"{reference} ({name})" if reference else ""


def group_table(measures: Sequence[Measure], reference: str, groups: Sequence[Group]) -> Table | None:
    """First the reference and the groups that keep the whole pool, then one row per group or point of the sweep."""
    if not measures:
        return None
    sweep = sweep_of(groups)
    names = name_columns(sweep)
    columns = (*names, *numbers("seeds"), *(Column(item.title, note=item.direction) for item in measures))
    compared = tuple(item.reference_text(groups) for item in measures)
    blank = ("",) * (len(names) - 1)
    references = [(reference, *blank, "", *compared)] if any(compared) else []
    whole = [group for group in groups if group.is_whole_pool and not group.base and not _on_line(group, sweep)]
    rows = [
        (*_names(group, sweep, len(names)), seeds_text(group), *(item.text_of(group) for item in measures))
        for group in (*whole, *(group for group in _ordered(groups, sweep) if group not in whole))
    ]
    return Table(columns, (*references, *rows), num_references=len(references) + len(whole))


def name_columns(sweep: Sweep | None) -> tuple[Column, ...]:
    """The columns that name a row: the group, or the swept value and, where there are several lines, the line."""
    if sweep is None:
        return words("group")
    return words(sweep.name, *([sweep.line_name] if len(sweep.lines) > 1 else []))


def _names(group: Group, sweep: Sweep | None, number: int) -> tuple[str, ...]:
    if sweep is None or not _on_line(group, sweep):
        return (group.label, *("",) * (number - 1))
    return (sweep.value_of(group), sweep.label_of(group))[:number]


def _on_line(group: Group, sweep: Sweep | None) -> bool:
    return sweep is not None and group not in sweep.levels


def _ordered(groups: Sequence[Group], sweep: Sweep | None) -> list[Group]:
    """The groups in the order of a table's rows: unchanged, or a sweep's levels and then its points by value."""
    return list(groups) if sweep is None else [*sweep.levels, *(point.group for _, point in sweep.points)]


def seeds_text(group: Group) -> str:
    """How many cells the group has, and how many of them failed."""
    failed = sum(cell.failed for cell in group.cells)
    return count(len(group.cells)) + (f" ({failed} failed)" if failed else "")
