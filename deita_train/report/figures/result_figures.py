"""The figures of the result: one quantity of all groups each, over the swept setting or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from deita_train.report.figures.curves import (
    Level,
    SweptLine,
    axis_range,
    cuts,
    estimates_by_group,
    estimates_over,
    fits,
)
from deita_train.report.figures.figure import Figure
from deita_train.report.results.groups import Group
from deita_train.report.results.result_measures import (
    LOWER,
    TUNED,
    Measure,
    accuracy_measure,
    column_measure,
    loss_measure,
    share_columns,
    untuned_name,
)
from deita_train.report.results.summary import RunSummary
from deita_train.report.results.sweep_axis import Sweep, sweep_of
from deita_train.report.statistics import estimate


def result_figures(summary: RunSummary, groups: Sequence[Group]) -> list[Figure]:
    """The outcomes, and how many of the kept rows each yes/no column of the pool holds for."""
    wanted = [
        *((f"heldout-loss-{name}", loss_measure(name), "nats per token") for name in TUNED),
        *((f"preferences-{name}", accuracy_measure(name), "") for name in TUNED),
        *(
            (f"kept-{name.replace('_', '-')}", column_measure(name, is_share=True), "")
            for name in share_columns(summary)
        ),
    ]
    return [
        _figure(name, unit, _Comparison(item, tuple(groups), sweep_of(groups)))
        for name, item, unit in wanted
        if any(map(item.values, groups))
    ]


@dataclass(frozen=True)
class _Comparison:
    """One quantity of the groups as a figure shows it: shares as percentages."""

    item: Measure
    groups: tuple[Group, ...]
    sweep: Sweep | None

    @property
    def sign(self) -> str:
        return "%" if self.item.is_share else ""

    @property
    def scale(self) -> int:
        return 100 if self.item.is_share else 1

    @property
    def values(self) -> dict[str, tuple[float, ...]]:
        """One value per seed of every group, by the group's label."""
        return {group.label: tuple(self.scale * value for value in self.item.values(group)) for group in self.groups}

    @property
    def levels(self) -> list[Group]:
        """The groups that are horizontal lines: those of the whole pool."""
        found = self.sweep.levels if self.sweep is not None else ()
        return [group for group in found if group.is_whole_pool and self.values[group.label]]

    @property
    def reference(self) -> float | None:
        """The pool's value or the untuned model's; None where a level already shows the pool."""
        value = self.item.reference_value(self.groups)
        return None if value is None or (self.levels and self.item.stage == "select") else self.scale * value

    @property
    def reference_name(self) -> str:
        return "pool" if self.item.stage == "select" else untuned_name(self.groups)

    @property
    def shown(self) -> list[float]:
        return [value for measured in self.values.values() for value in measured]

    @property
    def drawn_reference(self) -> float | None:
        """The reference where it leaves the data enough room."""
        return self.reference if self.reference is not None and fits(self.reference, self.shown) else None


def _figure(name: str, unit: str, compared: _Comparison) -> Figure:
    quantity, sweep = compared.item.title.partition(" after ")[0], compared.sweep
    axis = f"{quantity}, {unit}" if unit else quantity
    title = f"{compared.item.title[0].upper()}{compared.item.title[1:]}"
    if sweep is None:
        draw = partial(estimates_by_group, name, axis, compared.values, compared.drawn_reference, compared.sign)
        return Figure(name, title, _text(compared), draw)
    return Figure(name, f"{title}, by {sweep.name}", _text(compared), partial(_over, name, axis, compared, sweep))


def _over(name: str, axis: str, compared: _Comparison, sweep: Sweep) -> str:
    values, drawn = compared.values, compared.drawn_reference
    lines = []
    for line in sweep.lines:
        points = ((point.value, values[point.group.label]) for point in line.points)
        lines.append(SweptLine(line.label, tuple((place, measured) for place, measured in points if measured)))
    levels = [Level(group.label, values[group.label]) for group in compared.levels]
    ticks = {point.value: sweep.text(point.value) for _, point in sweep.points}
    reference = None if drawn is None else (compared.reference_name, drawn)
    return estimates_over(name, (sweep.name, axis), lines, levels, ticks, reference, compared.sign)


def _text(compared: _Comparison) -> str:
    """What a figure shows, and what it does not."""
    item, by_group = compared.item, compared.sweep is None
    if by_group:
        text = "Each dot is one seed, the diamond their mean and the bar its 95% interval."
    else:
        text = "Small ticks are seeds, markers their means and bars the 95% intervals."
    if item.direction:
        lower, higher = ("Further left", "Further right") if by_group else ("Lower", "Higher")
        text += f" {lower if item.direction == LOWER else higher} is better."
    if axis_range(compared.shown)[0] > 0:
        text += " The axis does not start at zero."
    if compared.levels:
        text += f" The dashed line is the {'whole pool' if item.stage == 'select' else 'model of the whole pool'}."
    text += _reference_text(compared)
    if cuts(list(compared.values.values())):
        text += " A bar that reaches the panel's edge goes on beyond it."
    if any(len(group.artefacts(item.stage)) < group.num_planned(item.stage) for group in compared.groups):
        text += " What failed is missing."
    return text


def _reference_text(compared: _Comparison) -> str:
    if compared.reference is None:
        return ""
    name = "the pool" if compared.reference_name == "pool" else f"the model {compared.reference_name}"
    if compared.drawn_reference is not None:
        return f" The {'dashed' if compared.sweep is None else 'dotted'} line is {name}."
    value = compared.item.text(estimate([compared.reference / compared.scale]))
    return f" {name[0].upper()}{name[1:]}: {value}, outside the panel."
