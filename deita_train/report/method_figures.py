"""Figures that compare selection methods by the rows that they select.

Each function draws one panel and returns it as SVG text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from deita_train.report.drawing import (
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

# An overlap of 1 is drawn this opaque, so that its number can still be read on it.
MAX_ALPHA = 0.6
# With more methods than this the numbers in the cells would touch.
MAX_NUMBERED = 12


def diversity_against_score(points: Mapping[str, tuple[float, float]], diversity: str) -> str:
    """A point per method: its rows' mean score to the right, their diversity upwards.

    Args:
        points: (mean score, diversity) by method, at least one; their order fixes the colours.
        diversity: the vertical axis' name, which says the measure and its better direction.
    """
    labels = list(points)
    columns, legend_height = legend_shape(labels)

    def draw(axes: Axes) -> None:
        for place, (label, (score, value)) in enumerate(points.items()):
            axes.plot([score], [value], _marker(place), color=series_colour(place), markersize=8, label=label)
        axes.grid(axis="x")
        axes.margins(0.1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("mean score of the selected rows")
        axes.set_ylabel(diversity)
        draw_legend(axes, columns, labels)

    return drawn("diversity-against-score", f"{diversity} against mean score, by method", 2.8 + legend_height, draw)


def overlap_heat_map(labels: Sequence[str], overlap: np.ndarray) -> str:
    """The Jaccard matrix ``[M, M]`` of M methods' rows, values in [0, 1], as a map of labelled cells."""
    size = len(labels)
    assert overlap.shape == (size, size), f"{overlap.shape} for {size} labels"

    def draw(axes: Axes) -> None:
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

    slanted = 0.6 * LETTER_INCHES * max(map(len, labels))
    return drawn("method-overlap", "Rows that the methods share", 0.6 + slanted + 1.7 * LINE_INCHES * size, draw)


def _marker(place: int) -> str:
    """The marker at ``place``: another one each time that the colours begin again."""
    return MARKERS[(place + place // len(SERIES)) % len(MARKERS)]


def _draw_cell(axes: Axes, row: int, column: int, value: float, numbered: bool) -> None:
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=SERIES[0], alpha=MAX_ALPHA * value, linewidth=0))
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=SURFACE, linewidth=1.5))
    if numbered:
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=INK, fontsize=8)
