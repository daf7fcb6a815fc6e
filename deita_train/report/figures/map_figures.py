"""Figures of the map of embeddings: what became of the rows, and where they are from.

Each function draws one panel and returns it as SVG text. The dots of one colour are one path of short commands, so that
thousands of them stay small; what is drawn is bounded by who reads the map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from deita_train.number_text import share
from deita_train.report.figures.drawing import POOL, SERIES, drawn, legend_shape
from deita_train.report.results.embedding_map import KEPT, OTHER, REJECTED, EmbeddingMap
from deita_train.report.texts import shortened

PANEL_INCHES = 3.9
# Widths in points of the dot of a row that was kept or rejected, and of another, among thousands of dots; and how many
# times as wide they are among few.
_LARGE, _SMALL, _WIDENED = 2.8, 2.2, 1.8
_COLOURS = {KEPT: SERIES[0], REJECTED: SERIES[1], OTHER: POOL}
_OTHER_SOURCES = "other sources"
_NAME_CHARS = 28
# A dot in the SVG text that matplotlib writes: a line from a place to the same place.
_DOT = re.compile(r"M (-?[\d.]+) (-?[\d.]+) \nL \1 \2 \n?")


@dataclass(frozen=True)
class _Dots:
    """Points `[n, 2]` of one colour."""

    points: np.ndarray
    colour: str
    size: float  # relative to others
    alpha: float = 1.0


def rows_by_fate(mapped: EmbeddingMap, labels: Mapping[str, str]) -> str:
    """The rows by what became of them, the kept ones on top; `labels` names each that is there."""
    layers = [
        _Dots(mapped.points[mapped.fates == fate], _COLOURS[fate], _SMALL if fate == OTHER else _LARGE)
        for fate in (OTHER, REJECTED, KEPT)
    ]
    legend = {label: _COLOURS[fate] for fate, label in labels.items()}
    return _panel("embedding-map", "Map of the embeddings by what became of the rows", mapped, layers, legend)


def rows_by_source(mapped: EmbeddingMap) -> str:
    """The rows by their source, those that were not kept faint."""
    colours = source_colours(mapped.source_rows)
    shown = np.array([source if source in colours else _OTHER_SOURCES for source in mapped.sources], dtype=object)
    layers = [
        _Dots(mapped.points[(shown == source) & ((mapped.fates == KEPT) == is_kept)], colour, size, alpha)
        for is_kept, size, alpha in ((False, _SMALL, 0.4), (True, _LARGE, 1.0))
        for source, colour in colours.items()
    ]
    legend = {shortened(source, _NAME_CHARS): colour for source, colour in colours.items()}
    return _panel("embedding-map-sources", "Map of the embeddings by source", mapped, layers, legend)


def source_colours(source_rows: Mapping[str, int]) -> dict[str, str]:
    """The colour of each source, the one with the most rows first; where there are too many, the small share one."""
    names = list(source_rows)
    if len(names) <= len(SERIES):
        return dict(zip(names, SERIES, strict=False))
    return {**dict(zip(names[: len(SERIES) - 1], SERIES, strict=False)), _OTHER_SOURCES: POOL}


def _wider(num_points: int) -> float:
    """By how much a dot is wider than among thousands."""
    return float(np.clip(60 / np.sqrt(num_points), 1, _WIDENED))


def _panel(name: str, title: str, mapped: EmbeddingMap, layers: Sequence[_Dots], legend: Mapping[str, str]) -> str:
    columns, legend_inches = legend_shape(list(legend))

    def draw(axes: Axes) -> None:
        axes.grid(visible=False)
        for layer in layers:
            _draw_dots(axes, layer, _wider(len(mapped.points)))
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.03)
        axes.autoscale_view()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines["left"].set_visible(True)
        for set_label, place, of in ((axes.set_xlabel, "first", 0), (axes.set_ylabel, "second", 1)):
            set_label(f"{place} component ({share(mapped.shares[of])} of the variance)")
        handles = [Line2D([], [], linestyle="none", marker="o", markersize=5, color=of) for of in legend.values()]
        axes.legend(
            handles, list(legend), loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderpad=0, handlelength=1,
            columnspacing=1.4,
        )  # fmt: skip

    svg = drawn(name, title, PANEL_INCHES + legend_inches, draw)
    return _DOT.sub(lambda dot: f"M{float(dot[1]):.1f} {float(dot[2]):.1f}h0", svg)


def _draw_dots(axes: Axes, dots: _Dots, wider: float) -> None:
    """One path of lines of no length, whose round ends are the dots."""
    if not len(dots.points):
        return
    path = Path(np.repeat(dots.points, 2, axis=0), np.tile([Path.MOVETO, Path.LINETO], len(dots.points)))
    path.should_simplify = False  # which would leave out lines of no length
    width = wider * dots.size
    axes.add_patch(
        PathPatch(path, fill=False, edgecolor=dots.colour, linewidth=width, alpha=dots.alpha, capstyle="round")
    )
