"""The figure of the funnel: how many rows each step left, and lost."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from deita_train.number_text import count, share
from deita_train.report.figures.drawing import MUTED, POOL, SERIES, draw_legend, drawn, legend_shape
from deita_train.report.results.funnel import Step

_LABELS = ("left", "left out")
# Of the width, for the numbers behind the bars.
_ROOM = 0.45


def funnel(steps: Sequence[Step]) -> str:
    """A bar for each step, from top to bottom: the rows that are left, and those that it lost."""
    columns, legend_inches = legend_shape(_LABELS)

    def draw(axes: Axes) -> None:
        axes.grid(visible=False)
        places, left = range(len(steps)), [step.left for step in steps]
        lost = [sum(step.lost.values()) for step in steps]
        axes.barh(places, left, 0.62, color=SERIES[0], label=_LABELS[0])
        axes.barh(places, lost, 0.62, left=left, color=POOL, label=_LABELS[1])
        for place, (rows, less) in enumerate(zip(left, lost, strict=True)):
            text = count(rows) if place == 0 else f"{count(rows)} ({share(rows / left[0])})"
            axes.annotate(text, (rows + less, place), (4, 0), textcoords="offset points", va="center", color=MUTED)
        axes.set_yticks(places, [step.name for step in steps])
        axes.set_ylim(len(steps) - 0.4, -0.6)
        axes.set_xlim(0, (1 + _ROOM) * left[0])
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        draw_legend(axes, columns)

    return drawn("funnel", "Rows that each step left", 0.4 + 0.3 * len(steps) + legend_inches, draw)
