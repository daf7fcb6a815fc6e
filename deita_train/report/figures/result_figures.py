"""The figures of the result: one quantity of all groups each, over the swept setting or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deita_train.report.figures import curves
from deita_train.report.figures.curves import Level, SweptLine
from deita_train.report.results import quantities as measures
from deita_train.report.results.groups import Group, estimate
from deita_train.report.results.quantities import LOWER, Measure
from deita_train.report.results.sweep_points import Sweep, sweep_of
from deita_train.report.sections.layout import Figure


def result_figures(groups: Sequence[Group]) -> list[Figure]:
    """The outcomes, and, where copies were planted in the pool, the share of them among the kept rows."""
    wanted = [
        *((f"heldout-loss-{name}", measures.loss_measure(name), "nats per token") for name in measures.TUNED),
        *((f"preferences-{name}", measures.accuracy_measure(name), "") for name in measures.TUNED),
        ("near-duplicates", measures.duplicate_measure(), ""),
    ]
    return [
        _figure(name, unit, _Comparison(item, tuple(groups), sweep_of(groups)))
        for name, item, unit in wanted
        if any(group.values(item.stage, item.read) for group in groups)
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
        item = self.item
        return {
            group.label: tuple(self.scale * value for value in group.values(item.stage, item.read))
            for group in self.groups
        }

    @property
    def levels(self) -> list[Group]:
        """The groups that are horizontal lines: those of the whole pool."""
        found = self.sweep.levels if self.sweep is not None else ()
        return [group for group in found if group.is_whole_pool and self.values[group.label]]

    @property
    def reference(self) -> float | None:
        """The pool's value or the untuned model's; what the whole pool keeps is the pool, and one line is enough."""
        value = self.item.reference_value(self.groups)
        return None if value is None or (self.levels and self.item.stage == "select") else self.scale * value

    @property
    def reference_name(self) -> str:
        return "pool" if self.item.stage == "select" else measures.untuned_name(self.groups)

    @property
    def shown(self) -> list[float]:
        return [value for measured in self.values.values() for value in measured]

    @property
    def drawn_reference(self) -> float | None:
        """The reference where it leaves the data room enough."""
        return self.reference if self.reference is not None and curves.fits(self.reference, self.shown) else None


def _figure(name: str, unit: str, compared: _Comparison) -> Figure:
    quantity, sweep = compared.item.title.partition(" after ")[0], compared.sweep
    axis = f"{quantity}, {unit}" if unit else quantity
    title = f"{compared.item.title[0].upper()}{compared.item.title[1:]}"
    if sweep is None:
        svg = curves.estimates_by_group(name, axis, compared.values, compared.drawn_reference, compared.sign)
        return Figure(name, title, _text(compared), svg)
    return Figure(name, f"{title}, by {sweep.name}", _text(compared), _drawn_over(name, axis, compared, sweep))


def _drawn_over(name: str, axis: str, compared: _Comparison, sweep: Sweep) -> str:
    values = compared.values
    lines = [
        SweptLine(
            line.label,
            tuple((point.value, values[point.group.label]) for point in line.points if values[point.group.label]),
        )
        for line in sweep.lines
    ]
    levels = [Level(group.label, values[group.label]) for group in compared.levels]
    ticks = {point.value: sweep.text(point.value) for _, point in sweep.points}
    drawn = compared.drawn_reference
    reference = None if drawn is None else (compared.reference_name, drawn)
    return curves.estimates_over(name, (sweep.name, axis), lines, levels, ticks, reference, compared.sign)


def _text(compared: _Comparison) -> str:
    """What a figure shows, and what it does not."""
    item, sweep = compared.item, compared.sweep
    if sweep is None:
        better = "Further left" if item.direction == LOWER else "Further right"
        text = f"Each dot is one seed, the diamond their mean and the bar its 95% interval. {better} is better"
    else:
        better = "Lower" if item.direction == LOWER else "Higher"
        text = f"Small ticks are seeds, markers their means and bars the 95% intervals. {better} is better"
    text += "; the axis does not start at zero." if curves.axis_range(compared.shown)[0] > 0 else "."
    if compared.levels:
        text += f" The dashed line is the {'whole pool' if item.stage == 'select' else 'model of the whole pool'}."
    text += _reference_text(compared)
    if curves.cuts(list(compared.values.values())):
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
