"""Published figures beside the run's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deita_train.evaluation.published import known_measure
from deita_train.evaluation.result_text import result_text
from deita_train.number_text import decimals
from deita_train.report.results.benchmarks import MODELS, results_of
from deita_train.report.results.groups import BASE_RUN, Group, setting_name, setting_value
from deita_train.report.results.result_measures import Measure, figure_reading
from deita_train.report.results.summary import RunSummary
from deita_train.store.run_record import RecordedFigure
from deita_train.table import Table, numbers, words

TITLE = "Published figures"
NOT_MEASURED = "not measured here"
_NOTE = (
    "Published figures are their source's: of its own training, judge and version of the benchmark. The notes of each "
    "benchmark say how far they are comparable."
)


def published_table(summary: RunSummary, groups: Sequence[Group]) -> Table | None:
    """A row for each published figure that the recipe names; None where it names none."""
    found = published_rows(summary, groups)
    if not found:
        return None
    has_groups = len({row[2] for row in found}) > 1
    named = words("figure", "model", *(["group"] if has_groups else []))
    rows = tuple(row if has_groups else (*row[:2], *row[3:]) for row in found)
    return Table((*named, *numbers("this run", "published"), *words("source")), rows, TITLE, note=_NOTE)


def published_in_runs(rows: Sequence[tuple[str, ...]]) -> Table:
    """The rows of several runs, each with the run's name before it."""
    columns = (*words("run", "figure", "model", "group"), *numbers("this run", "published"), *words("source"))
    return Table(columns, tuple(rows), TITLE, note=_NOTE)


def published_rows(summary: RunSummary, groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """Figure, model, group, the run's own value, the published one, and its source."""
    rows: list[tuple[str, ...]] = []
    for figure in summary.published:
        group = _group(figure, groups)
        label = group.label if group is not None else _cell_words(figure.cell)
        own = NOT_MEASURED if group is None else _own(figure, group)
        title = known_measure(figure.measure).title
        rows.append((title, MODELS[figure.model], label, own, _published(figure), figure.source))
    return rows


def _group(figure: RecordedFigure, groups: Sequence[Group]) -> Group | None:
    """The cells that a figure stands beside; none where the recipe no longer has them."""
    if figure.cell is None:
        return next((group for group in groups if group.base), None)
    return next((group for group in groups if figure.cell.items() <= group.settings.items()), None)


def _own(figure: RecordedFigure, group: Group) -> str:
    """The run's value: over questions if there is one model, over seeds if there are several."""
    of = known_measure(figure.measure)
    stage = f"{of.label}.{figure.model}"
    made = group.artefacts(stage)
    if len(made) == 1 and group.num_planned(stage) == 1:
        result = results_of(made[0]).get(of.result)
        return NOT_MEASURED if result is None else result_text(result)
    is_share = any(
        results_of(item)[of.result].unit in ("share", "percent") for item in made if of.result in results_of(item)
    )
    measure = Measure(of.title, stage, figure_reading(of.result), is_share=is_share)
    is_known = measure.values(group) or group.num_planned(stage) > len(made)
    return measure.text_of(group) if is_known else NOT_MEASURED


def _published(figure: RecordedFigure) -> str:
    unit = "%" if known_measure(figure.measure).highest == 100 else ""
    return f"{decimals(figure.value, 2)}{unit}"


def _cell_words(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return BASE_RUN
    return ", ".join(f"{setting_name(path)} {setting_value(value)}" for path, value in cell.items())
