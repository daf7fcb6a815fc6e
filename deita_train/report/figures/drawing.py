"""How every figure is drawn: colours, style, sizes, and the SVG text that comes out.

Equal numbers give equal text: ids are derived from the figure's name and no date is written. A figure uses a few named
colours; `themed` turns them into CSS variables, so that a page can show it light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# As wide as a phone's screen, so that text keeps its size there; pages set two panels side by side.
WIDTH_INCHES = 4.7
PNG_DPI = 160
# Height of one row of the legend above a panel, and of one line of text.
LINE_INCHES = 0.19
# Width of one letter of the figures' text, on average.
LETTER_INCHES = 0.085

# Okabe and Ito's palette, distinct under any common colour blindness, the two palest last.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINE_STYLES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, MUTED, GRID, POOL, SURFACE = "#1f2937", "#5b6471", "#e3e6ea", "#a3abb6", "#ffffff"
THEME = {
    INK: "--fig-ink",
    MUTED: "--fig-muted",
    GRID: "--fig-grid",
    POOL: "--fig-pool",
    SURFACE: "--fig-surface",
    **{colour: f"--fig-series-{place}" for place, colour in enumerate(SERIES)},
}

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelsize": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": SURFACE,
    "axes.facecolor": "none",
}


def series_colour(place: int) -> str:
    """The colour of the group or line at `place` in the run's order."""
    return SERIES[place % len(SERIES)]


def series_style(place: int) -> str:
    """The line style at `place`: a new one each time the colours repeat."""
    return LINE_STYLES[place // len(SERIES) % len(LINE_STYLES)]


def themed(svg: str) -> str:
    """`svg` with every named colour as a CSS variable whose fallback is the colour itself."""
    for colour, variable in THEME.items():
        svg = svg.replace(f": {colour}", f": var({variable}, {colour})")
    return svg


def picture(width_inches: float, height_inches: float, draw: Callable[[Figure], None]) -> bytes:
    """A figure that `draw` fills, as a PNG; on one machine equal numbers give equal bytes."""
    style: Any = STYLE
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained", dpi=PNG_DPI)
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def drawn(name: str, title: str, height_inches: float, draw: Callable[[Axes], None]) -> str:
    """Draw one panel and return its SVG element; its ids begin with `name`, as a page holds many figures."""
    style: Any = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def draw_legend(axes: Axes, columns: int, labels: Sequence[str] = ()) -> None:
    """Draw the legend above the panel, where it covers no data, in the order of `labels` if given."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = labels or list(handles)
    axes.legend(
        [handles[label] for label in order],
        order,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderpad=0,
        handlelength=1.6,
        columnspacing=1.4,
    )


def legend_shape(labels: Sequence[str]) -> tuple[int, float]:
    """Columns of a legend of `labels` that fit the panel's width, and its height in inches."""
    # A legend's line and its gaps take 0.5 inches.
    columns = max(1, int((WIDTH_INCHES - 0.5) / (LETTER_INCHES * max(map(len, labels)) + 0.5)))
    return columns, LINE_INCHES * -(-len(labels) // columns)


def name_vertical(axes: Axes, place: float, text: str) -> None:
    """Write `text` above the data, on the side of a vertical line that has more room."""
    axes.set_ylim(0, 1.16 * axes.get_ylim()[1])
    low, high = axes.get_xlim()
    near_end = place > (low + high) / 2
    axes.annotate(
        text,
        (place, 1),
        (-4 if near_end else 4, -9),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if near_end else "left",
        color=INK,
    )


def count_axis(axes: Axes) -> None:
    """Whole numbers on the vertical axis."""
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(compact_tick))


def compact_tick(value: float, _: int | None) -> str:
    """A whole number at a tick: `2,000`, `20 k`."""
    return f"{value / 1000:,g} k" if value >= 1e4 else f"{value:,g}"
