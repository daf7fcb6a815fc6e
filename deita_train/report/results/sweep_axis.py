"""A sweep over a numeric setting as the axis of a figure: which setting it is, and the lines of groups over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deita_train.budget import ROWS, amount_of, form_of, is_mapping_budget
from deita_train.report.results.groups import (
    METHOD,
    Group,
    method_label,
    setting_name,
    setting_value,
    settings_label,
    varying_paths,
)

BUDGET = "select.budget"


@dataclass(frozen=True)
class Point:
    """A group at its value of the swept setting."""

    value: float
    group: Group


@dataclass(frozen=True)
class Line:
    """Groups that differ only in the swept setting, in the order of its values."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Sweep:
    """The groups of a run over one numeric setting.

    Attributes:
        path: the setting's dotted path.
        name: the path in words: `budget` for `select.budget`.
        lines: the groups that have a value of it.
        levels: the groups that have none: the whole pool, which has no budget, and a base run that no cell repeats.
        form: of its values, as in `deita_train/budget.py`; `rows` for every number that is no budget.
    """

    path: str
    name: str
    lines: tuple[Line, ...]
    levels: tuple[Group, ...]
    form: str = ROWS

    @property
    def line_name(self) -> str:
        """What distinguishes the lines: `method`, or `settings` where it is something else."""
        others = varying_paths([line.points[0].group.settings for line in self.lines])
        return "method" if set(others) <= {self.path, METHOD} else "settings"

    @property
    def points(self) -> list[tuple[Line, Point]]:
        """Every point with its line, by value and then in the lines' order."""
        found = [(line, point) for line in self.lines for point in line.points]
        return sorted(found, key=lambda item: item[1].value)

    @property
    def labels(self) -> list[str]:
        """The labels of the lines and then of the levels; their order fixes the colours."""
        return [*(line.label for line in self.lines), *(group.label for group in self.levels)]

    def label_of(self, group: Group) -> str:
        """The label of the group's line, or the group's own where it is a level."""
        lines = (line.label for line in self.lines if any(point.group is group for point in line.points))
        return next(lines, group.label)

    def depth_of(self, group: Group) -> float:
        """The rank of the group's value among the swept ones, from 0 (lowest) to 1 (highest; also for a level)."""
        values = sorted({point.value for _, point in self.points})
        own = [point.value for _, point in self.points if point.group is group]
        return values.index(own[0]) / (len(values) - 1) if own else 1.0

    def value_of(self, group: Group) -> str:
        """The group's value of the setting as text."""
        return setting_value(group.settings[self.path])

    def text(self, value: float) -> str:
        """A point's value as text."""
        return setting_value(value if self.form == ROWS else {self.form: value})


def sweep_of(groups: Sequence[Group]) -> Sweep | None:
    """The sweep over `select.budget` if the run has one, else over the first numeric setting with two values."""
    paths = varying_paths([group.settings for group in groups])
    numeric = [path for path in paths if _is_numeric(path, groups)]
    if not numeric:
        return None
    path = BUDGET if BUDGET in numeric else numeric[0]
    valued = [group for group in groups if group.settings.get(path) is not None]
    levels = sorted((group for group in groups if group not in valued), key=lambda group: not group.is_whole_pool)
    form = form_of(valued[0].settings[path])
    return Sweep(path, setting_name(path, paths), _lines(path, valued), tuple(levels), form)


def _is_numeric(path: str, groups: Sequence[Group]) -> bool:
    """Whether at least two groups have different numbers there, and none has anything else.

    Budgets count as numbers where all are shares or all are tokens: rows and tokens share no axis.
    """
    values = [group.settings[path] for group in groups if group.settings.get(path) is not None]
    if values and all(map(is_mapping_budget, values)) and len(set(map(form_of, values))) == 1:
        values = list(map(amount_of, values))
    return all(_is_number(value) for value in values) and len(set(values)) > 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _lines(path: str, groups: Sequence[Group]) -> tuple[Line, ...]:
    moving = {name for name in groups[0].settings if _moves_along(name, path, groups)}
    rests = [{name: value for name, value in group.settings.items() if name not in moving} for group in groups]
    members: dict[str, list[Group]] = {}
    for group, rest in zip(groups, rests, strict=True):
        label = settings_label(rest, rests) or method_label(group.cells) or "this recipe"
        members.setdefault(label, []).append(group)
    return tuple(
        Line(
            label,
            tuple(
                sorted(
                    (Point(amount_of(group.settings[path]), group) for group in found), key=lambda point: point.value
                )
            ),
        )
        for label, found in members.items()
    )


def _moves_along(name: str, path: str, groups: Sequence[Group]) -> bool:
    """Whether a number follows the swept one step by step, as with joined paths: then it separates no lines."""
    pairs = {
        (amount_of(group.settings[name]), amount_of(group.settings[path]))
        for group in groups
        if name == path or _is_number(group.settings.get(name))
    }
    return (
        len({amount_of(group.settings[path]) for group in groups}) == len(pairs) == len({value for value, _ in pairs})
    )
