"""Figures that compare selection methods by the rows that they select.

Each panel can be drawn on given axes, for a figure of several, or returned as SVG text, for the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from deita_train.report.figures.drawing import (
    INK,
    LETTER_INCHES,
    LINE_INCHES,
    MARKERS,
    SERIES,
    SURFACE,
    draw_legend,
    drawn,
    legend_shape,
    series_colour,
)

# The opacity of an overlap of 1: its number must stay readable.
MAX_ALPHA = 0.6
# With more methods than this the numbers in the cells would touch.
MAX_NUMBERED = 12


@dataclass(frozen=True)
class Plane:
    """A point per method, one quantity to the right and one upwards.

    Attributes:
        points: (right, upwards) by method, at least one; their order fixes the colours.
        right: the horizontal axis' name.
        upwards: the vertical axis' name; for a measure of diversity it also says which direction is better.
    """

    points: Mapping[str, tuple[float, float]]
    right: str
    upwards: str

    def draw(self, axes: Axes) -> None:
        """Draw the points, without the legend."""
        for place, (label, (right, upwards)) in enumerate(self.points.items()):
            axes.plot([right], [upwards], _marker(place), color=series_colour(place), markersize=8, label=label)
        axes.grid(axis="x")
        axes.margins(0.1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(self.right)
        axes.set_ylabel(self.upwards)


def methods_in_plane(plane: Plane) -> str:
    """The methods as points below a legend."""
    labels = list(plane.points)
    columns, legend_height = legend_shape(labels)

    def draw(axes: Axes) -> None:
        plane.draw(axes)
        draw_legend(axes, columns, labels)

    title = f"{plane.upwards} against {plane.right}, by method"
    return drawn("methods-in-plane", title, 2.8 + legend_height, draw)


def overlap_heat_map(labels: Sequence[str], overlap: np.ndarray) -> str:
    """The Jaccard matrix `[M, M]` of M methods' rows, values in [0, 1], as a map of labelled cells."""
    height = overlap_height(labels)
    return drawn(
        "method-overlap", "Rows that the methods share", height, lambda axes: draw_overlap(axes, labels, overlap)
    )


def overlap_height(labels: Sequence[str]) -> float:
    """The height of the map in inches, including its slanted labels."""
    slanted = 0.6 * LETTER_INCHES * max(map(len, labels))
    return 0.6 + slanted + 1.7 * LINE_INCHES * len(labels)


def draw_overlap(axes: Axes, labels: Sequence[str], overlap: np.ndarray) -> None:
    """Draw the map of `overlap_heat_map` on `axes`."""
    size = len(labels)
    assert overlap.shape == (size, size), f"{overlap.shape} for {size} labels"
    axes.grid(visible=False)
    for row in range(size):
        for column in range(size):
            _draw_cell(axes, row, column, float(overlap[row, column]), numbered=size <= MAX_NUMBERED)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_xticks(range(size), labels, rotation=35, ha="right", color=INK)
    axes.set_yticks(range(size), labels, color=INK)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _marker(place: int) -> str:
    """The marker at `place`: shifted by one each time the colours repeat."""
    return MARKERS[(place + place // len(SERIES)) % len(MARKERS)]


def _draw_cell(axes: Axes, row: int, column: int, value: float, numbered: bool) -> None:
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=SERIES[0], alpha=MAX_ALPHA * value, linewidth=0))
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=SURFACE, linewidth=1.5))
    if numbered:
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=INK, fontsize=8)
