"""Figures that compare groups: estimates side by side, estimates over a swept setting, and training curves.

Each function draws one panel and returns it as SVG text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from deita_train.report.figures.drawing import (
    INK,
    LETTER_INCHES,
    MARKERS,
    MUTED,
    SURFACE,
    WIDTH_INCHES,
    draw_legend,
    drawn,
    legend_shape,
    series_colour,
    series_style,
)
from deita_train.report.statistics import Estimate, estimate

# A reference line is drawn only where the data keeps at least this share of the axis.
MIN_DATA_SHARE = 0.3
# An axis shows an interval up to this many times the spread of the values beyond them: the interval of two seeds is 13
# times as wide as their distance, and would flatten everything else.
MAX_REACH = 1.5
# The distance between the estimates of several lines at one value, as a share of the axis.
DODGE = 0.02


@dataclass(frozen=True)
class SweptLine:
    """One measurement per seed at each value of the swept setting."""

    label: str
    points: tuple[tuple[float, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Level:
    """A group that has no value of the swept setting: one measurement per seed."""

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """A quantity over the steps of one training; `depth` from 0 to 1 draws it from pale to full."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    depth: float = 1.0


def fits(reference: float, values: Sequence[float]) -> bool:
    """Whether an axis that also shows `reference` leaves the values enough room."""
    low, high = axis_range(values)
    widened = max(high, reference) - min(low, reference)
    return high == low or (high - low) / widened >= MIN_DATA_SHARE


def cuts(measured: Sequence[Sequence[float]]) -> bool:
    """Whether an axis cuts the interval of any of these groups of values."""
    estimates = [estimate(values) for values in measured if values]
    low, high = axis_range([value for values in measured for value in values], estimates)
    return any(item.interval[0] < low or item.interval[1] > high for item in estimates)


def axis_range(values: Sequence[float], estimates: Sequence[Estimate] = ()) -> tuple[float, float]:
    """The lowest and the highest place to show: all values, and their intervals as far as `MAX_REACH` allows."""
    low, high = min(values), max(values)
    reach = MAX_REACH * (high - low)
    ends = [end for item in estimates for end in item.interval]
    return max(low - reach, min([low, *ends])), min(high + reach, max([high, *ends]))


def estimates_by_group(
    name: str,
    axis: str,
    values: Mapping[str, Sequence[float]],
    reference: float | None = None,
    unit: str = "",
) -> str:
    """One row per group: a dot per seed, the mean as a diamond, its 95% interval as a bar.

    Args:
        name: of the figure's file.
        axis: the quantity, and its unit if it has one.
        values: by group, for every group of the run in its order, which fixes the colours; a group without values has
            an empty row.
        reference: a dashed vertical line.
        unit: follows each number at the axis.
    """

    def draw(axes: Axes) -> None:
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=1, linestyle="--")
        for row, measured in enumerate(values.values()):
            if measured:
                _draw_row(axes, row, measured)
        axes.set_yticks(range(len(values)), [textwrap.fill(label, 26) for label in values], color=INK)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if unit:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
        axes.set_xlim(*_padded(list(values.values()), reference, unit))
        axes.set_xlabel(axis)

    lines = sum(len(textwrap.wrap(label, 26)) for label in values)
    return drawn(name, f"{axis}, by group", 0.8 + 0.3 * len(values) + 0.13 * lines, draw)


def estimates_over(
    name: str,
    titles: tuple[str, str],
    lines: Sequence[SweptLine],
    levels: Sequence[Level],
    ticks: Mapping[float, str],
    reference: tuple[str, float] | None = None,
    unit: str = "",
) -> str:
    """A quantity over a swept setting: lines through the means, 95% intervals as bars.

    Args:
        name: of the figure's file.
        titles: of the setting and of the quantity.
        lines: drawn in the colours of their order.
        levels: horizontal lines with their intervals as bands, in the colours that follow.
        ticks: the swept values with their texts; the axis is logarithmic where all are above zero.
        reference: a label and its value, drawn as a thin dotted line.
        unit: follows each number at the axis.
    """
    shown = [measured for line in lines for _, measured in line.points] + [level.values for level in levels]
    labels = [line.label for line in lines] + [level.label for level in levels] + ([reference[0]] if reference else [])
    columns, legend_height = legend_shape(labels)

    def draw(axes: Axes) -> None:
        scale = _Scale(list(ticks))
        if reference is not None:
            axes.axhline(reference[1], color=MUTED, linewidth=1, linestyle=":", label=reference[0], zorder=1)
        for place, level in enumerate(levels, start=len(lines)):
            _draw_level(axes, level, place)
        for place, line in enumerate(lines):
            _draw_line(axes, line, place, scale, (place - (len(lines) - 1) / 2) * DODGE)
        axes.set_ylim(*_padded(shown, reference[1] if reference else None, unit))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if unit:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
        scale.apply(axes, ticks)
        axes.set_xlabel(titles[0])
        axes.set_ylabel(titles[1])
        draw_legend(axes, columns, labels)

    return drawn(name, f"{titles[1]} over {titles[0]}", 2.7 + legend_height, draw)


def training_curves(
    name: str,
    quantity: str,
    labels: Sequence[str],
    curves: Sequence[Curve],
    level: tuple[float, str] | None = None,
) -> str:
    """A quantity over the optimizer's steps, one thin line per run.

    Args:
        name: of the figure's file.
        quantity: the vertical axis.
        labels: every label of the run in its order, which fixes the colours.
        curves: each with one of the labels.
        level: a thin horizontal line and its text.
    """
    used = [label for label in labels if any(curve.label == label for curve in curves)]
    columns, legend_height = legend_shape(used) if len(used) > 1 else (1, 0.0)

    def draw(axes: Axes) -> None:
        named: set[str] = set()
        for curve in curves:
            place = labels.index(curve.label)
            colour, style = (series_colour(place), series_style(place)) if len(labels) > 1 else (INK, "-")
            text = "_" if curve.label in named else curve.label
            # The legend's sample is the first curve's: it is drawn at full depth there.
            axes.plot(
                curve.steps, curve.values, color=colour, linewidth=1, linestyle=style, alpha=0.3 + 0.6 * curve.depth
            )
            axes.plot([], [], color=colour, linewidth=1.6, linestyle=style, label=text)
            named.add(curve.label)
        if level is not None:
            _draw_named_level(axes, *level)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(quantity)
        if len(used) > 1:
            draw_legend(axes, columns, used)

    return drawn(name, f"{quantity} over training", 2.4 + legend_height, draw)


class _Scale:
    """The axis of a swept setting: logarithmic where every value is above zero, else linear."""

    def __init__(self, values: list[float]) -> None:
        self.log = min(values) > 0
        self.low, self.high = self._in(min(values)), self._in(max(values))

    def moved(self, value: float, share: float) -> float:
        """`value` moved along the axis by a share of its length."""
        place = self._in(value) + share * (self.high - self.low)
        return float(10**place) if self.log else place

    def apply(self, axes: Axes, ticks: Mapping[float, str]) -> None:
        """Set scale, limits and ticks; texts that would touch are slanted."""
        if self.log:
            axes.set_xscale("log")
        axes.set_xlim(self.moved(min(ticks), -0.07), self.moved(max(ticks), 0.07))
        axes.xaxis.set_minor_locator(NullLocator())
        slanted = self._crowded(ticks)
        axes.set_xticks(
            list(ticks), list(ticks.values()), rotation=35 if slanted else 0, ha="right" if slanted else "center"
        )

    def _in(self, value: float) -> float:
        return float(np.log10(value)) if self.log else float(value)

    def _crowded(self, ticks: Mapping[float, str]) -> bool:
        places = sorted((self._in(value), len(text)) for value, text in ticks.items())
        inches = (WIDTH_INCHES - 0.8) / 1.14 / (self.high - self.low)
        return any((b - a) * inches < LETTER_INCHES * ((m + n) / 2 + 1) for (a, m), (b, n) in pairwise(places))


def _padded(measured: Sequence[Sequence[float]], reference: float | None, unit: str) -> tuple[float, float]:
    """Limits of an axis with a little room on both sides; percentages stay between 0 and 100."""
    values = [value for group in measured for value in group]
    low, high = axis_range(values, [estimate(group) for group in measured if group])
    if reference is not None:
        low, high = min(low, reference), max(high, reference)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    if unit == "%":
        return max(low - room, -1), min(high + room, 101)
    return low - room, high + room


def _draw_row(axes: Axes, row: int, values: Sequence[float]) -> None:
    colour, mean = series_colour(row), estimate(values)
    if len(values) > 1:
        axes.plot(values, [row - 0.22] * len(values), "o", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
    if mean.half_width:
        axes.plot(mean.interval, [row, row], color=colour, linewidth=2)
    axes.plot([mean.mean], [row], "D", color=colour, markersize=6.5, markeredgecolor=SURFACE)


def _draw_line(axes: Axes, line: SweptLine, place: int, scale: _Scale, shift: float) -> None:
    colour = series_colour(place)
    found = [(scale.moved(value, shift), estimate(measured)) for value, measured in line.points]
    for x, item in found:
        if item.half_width:
            axes.plot([x, x], item.interval, color=colour, linewidth=1.4)
    for value, measured in line.points:
        seeds = measured if len(measured) > 1 else ()
        x = scale.moved(value, shift)
        axes.plot([x] * len(seeds), seeds, "_", color=colour, markersize=6, alpha=0.8)
    axes.plot(
        [x for x, _ in found],
        [item.mean for _, item in found],
        color=colour,
        linestyle=series_style(place),
        linewidth=1.4,
        marker=MARKERS[place % len(MARKERS)],
        markersize=6,
        markeredgecolor=SURFACE,
        label=line.label,
    )


def _draw_level(axes: Axes, level: Level, place: int) -> None:
    mean = estimate(level.values)
    if mean.half_width:
        axes.axhspan(*mean.interval, color=series_colour(place), alpha=0.15, linewidth=0)
    axes.axhline(mean.mean, color=series_colour(place), linewidth=1.4, linestyle="--", label=level.label)


def _draw_named_level(axes: Axes, value: float, text: str) -> None:
    """A thin horizontal line, its text above its right end."""
    axes.axhline(value, color=MUTED, linewidth=1, linestyle=":")
    axes.annotate(
        text, (1, value), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", color=INK
    )
