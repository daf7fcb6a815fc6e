"""The figure of a scorer's calibration: the mean score of held-out rows by their label, beside the diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from deita_train.report.figures.drawing import MARKERS, MUTED, draw_legend, drawn, series_colour

LOWEST, HIGHEST = 1, 6


def calibration_by_label(by_label: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Mean scores by label, one line per dimension; on the dashed diagonal a mean equals its label."""

    def draw(axes: Axes) -> None:
        ends = (LOWEST, HIGHEST)
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--", label="score = label")
        for place, (name, entries) in enumerate(by_label.items()):
            points = [(entry["label"], entry["mean_score"]) for entry in entries]
            axes.plot(*zip(*points, strict=True), color=series_colour(place), marker=MARKERS[place], label=name)
        axes.set_xticks(range(LOWEST, HIGHEST + 1))
        axes.set_yticks(range(LOWEST, HIGHEST + 1))
        axes.set_xlabel("label")
        axes.set_ylabel("mean score")
        draw_legend(axes, 3)

    return drawn("calibration", "Mean score by label on held-out rows", 3.2, draw)
