"""The report's figures: each function draws one panel and returns it as SVG text.

The text is the same for the same numbers: ids are derived from the figure's name and no date is written. A figure is
drawn in a few named colours; ``themed`` turns them into CSS variables, so that a page can show it light or dark.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from deita_train.report.formats import duration
from deita_train.report.groups import estimate

# A panel is as wide as a phone's screen, so that its text keeps its size there; pages set two side by side.
WIDTH_INCHES = 4.7
NUM_BINS = 32
MAX_TURNS_SHOWN = 12

# Okabe and Ito's palette, told apart with any common colour blindness, the two palest last.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINE_STYLES = ("-", "--", ":")
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
    """The colour of the group at ``place`` in the run's order."""
    return SERIES[place % len(SERIES)]


def themed(svg: str) -> str:
    """``svg`` with every named colour as a CSS variable whose fallback is the colour itself."""
    for colour, variable in THEME.items():
        svg = svg.replace(f": {colour}", f": var({variable}, {colour})")
    return svg


def estimates_by_group(
    name: str, axis: str, values: Mapping[str, Sequence[float]], reference: float | None = None, unit: str = ""
) -> str:
    """One line per group: a dot per seed, the mean as a diamond, its 95% interval as a bar.

    ``values`` names every group of the run, in its order, which fixes the colours; a group without values has an empty
    line. ``reference`` is a dashed vertical line: the pool's value.
    """

    def draw(axes: Axes) -> None:
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=1, linestyle="--")
        for place, measured in enumerate(values.values()):
            if measured:
                _draw_estimate(axes, place, measured)
        axes.set_yticks(range(len(values)), [textwrap.fill(label, 26) for label in values], color=INK)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if unit:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
        axes.margins(x=0.08)
        axes.set_xlabel(axis)

    return _drawn(name, f"{axis}, by group", 0.9 + 0.42 * len(values), draw)


def score_histogram(dimension: str, edges: Sequence[float], counts: Sequence[int], mean: float) -> str:
    """How many turns received which score; ``edges`` is [B + 1] and ``counts`` [B]."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=series_colour(0), alpha=0.8)
        axes.axvline(mean, color=INK, linewidth=1)
        _name_line(axes, mean, f"mean {mean:.2f}")
        _count_axis(axes)
        axes.set_xlabel(f"{dimension} score")
        axes.set_ylabel("turns")

    return _drawn(f"score-{dimension}", f"Histogram of {dimension} scores", 2.6, draw)


def evol_score_distribution(pool: np.ndarray, selected: np.ndarray) -> str:
    """Evol scores of the pool's rows [N] and of the kept rows [K], as shares of each."""
    pool, selected = pool[np.isfinite(pool)], selected[np.isfinite(selected)]
    return _compared_histogram("evol-score", "Evol score", "evol score", pool, selected, _linear_bins(pool))


def length_distribution(pool: np.ndarray, selected: np.ndarray) -> str:
    """Characters per conversation of the pool [N] and of the kept rows [K], on a logarithmic axis."""
    pool, selected = np.maximum(pool, 1), np.maximum(selected, 1)
    low, high = float(pool.min()), float(pool.max())
    bins = np.geomspace(low, high if high > low else low + 1, NUM_BINS + 1)
    # The powers of ten lose a last bit on the way, and a row outside every bin would vanish from its share.
    bins[0], bins[-1] = low, max(high, low + 1)
    return _compared_histogram("length", "Length", "characters per conversation", pool, selected, bins, log=True)


def turns_distribution(pool: np.ndarray, selected: np.ndarray) -> str:
    """Turns per conversation of the pool [N] and of the kept rows [K]; the long tail shares one bar."""
    top = int(min(max(pool.max(), 2), MAX_TURNS_SHOWN))
    low = int(min(pool.min(), 1))

    def draw(axes: Axes) -> None:
        places = np.arange(low, top + 1)
        for values, shift, colour, name in ((pool, -0.2, POOL, "pool"), (selected, 0.2, SERIES[0], "kept")):
            shares = [100 * np.mean(np.minimum(values, top) == place) for place in places]
            axes.bar(places + shift, shares, 0.38, color=colour, label=name)
        tail = "+" if pool.max() > top else ""
        axes.set_xticks(places, [f"{place}{tail if place == top else ''}" for place in places])
        axes.tick_params(axis="x", length=0)
        _finish_shares(axes, "turns per conversation")

    return _drawn("turns", "Turns per conversation, pool and kept rows", 2.6, draw)


def nearest_similarity_histogram(kept: np.ndarray, rejected: np.ndarray, threshold: float | None) -> str:
    """Highest similarity of each row reached to the rows kept before it, kept [K] and rejected [R] stacked."""
    bins = _linear_bins(np.concatenate([kept, rejected, [] if threshold is None else [threshold]]))

    def draw(axes: Axes) -> None:
        kept_counts, rejected_counts = np.histogram(kept, bins)[0], np.histogram(rejected, bins)[0]
        axes.stairs(kept_counts, bins, fill=True, color=SERIES[0], label="kept")
        total = kept_counts + rejected_counts
        axes.stairs(total, bins, baseline=kept_counts, fill=True, color=SERIES[1], label="rejected")
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
            _name_line(axes, threshold, f"threshold {threshold:g}")
        _count_axis(axes)
        axes.set_xlabel("cosine similarity to the nearest kept row")
        axes.set_ylabel("rows")
        _legend(axes, 2)

    return _drawn("nearest-similarity", "Similarity to the nearest kept row", 2.8, draw)


def loss_curves(labels: Sequence[str], curves: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> str:
    """SFT loss over steps, one thin line per run: (group's label, steps, losses).

    ``labels`` names every group of the run, in its order, which fixes the colours.
    """
    # A letter is about 0.085 inches wide, a legend's line and its gaps 0.45.
    columns = max(1, int((WIDTH_INCHES - 0.5) / (0.085 * max(map(len, labels)) + 0.45)))

    def draw(axes: Axes) -> None:
        named: set[str] = set()
        for label, steps, losses in curves:
            place = labels.index(label)
            style = LINE_STYLES[place // len(SERIES) % len(LINE_STYLES)]
            name = "_" if label in named else label
            axes.plot(steps, losses, color=series_colour(place), linewidth=1, linestyle=style, alpha=0.85, label=name)
            named.add(label)
        _finish_losses(axes)
        if len(labels) > 1:
            _legend(axes, columns)

    legend_rows = -(-len(labels) // columns) if len(labels) > 1 else 0
    return _drawn("sft-loss", "Training loss of SFT", 2.5 + 0.19 * legend_rows, draw)


def training_curve(name: str, steps: Sequence[float], losses: Sequence[float]) -> str:
    """The training loss of one model over its steps."""

    def draw(axes: Axes) -> None:
        axes.plot(steps, losses, color=INK, linewidth=1.1)
        _finish_losses(axes)

    return _drawn(f"loss-{name.replace('.', '-').replace('_', '-')}", f"Training loss of {name}", 2.3, draw)


def wall_time_by_stage(seconds: Mapping[str, float]) -> str:
    """Wall time of every stage, the stages from top to bottom in the order of the pipeline."""

    def draw(axes: Axes) -> None:
        axes.grid(visible=False)
        places = range(len(seconds))
        axes.barh(places, list(seconds.values()), 0.62, color=SERIES[0])
        for place, value in zip(places, seconds.values(), strict=True):
            axes.annotate(duration(value), (value, place), (4, 0), textcoords="offset points", va="center", color=MUTED)
        axes.set_yticks(places, list(seconds), color=INK)
        axes.set_ylim(len(seconds) - 0.4, -0.6)
        axes.set_xlim(0, 1.3 * max(seconds.values()) or 1)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    return _drawn("wall-time", "Wall time by stage", 0.3 + 0.3 * len(seconds), draw)


def _drawn(name: str, title: str, height_inches: float, draw: Callable[[Axes], None]) -> str:
    """Draw one panel and return its SVG element, whose ids begin with ``name``: a page may hold many figures."""
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


def _draw_estimate(axes: Axes, place: int, values: Sequence[float]) -> None:
    colour, mean = series_colour(place), estimate(values)
    if len(values) > 1:
        axes.plot(values, [place - 0.22] * len(values), "o", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
    if mean.half_width:
        axes.plot([mean.mean - mean.half_width, mean.mean + mean.half_width], [place, place], color=colour, linewidth=2)
    axes.plot([mean.mean], [place], "D", color=colour, markersize=6.5, markeredgecolor=SURFACE)


def _compared_histogram(
    name: str, title: str, axis: str, pool: np.ndarray, selected: np.ndarray, bins: np.ndarray, log: bool = False
) -> str:
    def draw(axes: Axes) -> None:
        for values, colour, label in ((pool, POOL, "pool"), (selected, SERIES[0], "kept")):
            shares = 100 * np.histogram(values, bins)[0] / max(len(values), 1)
            axes.stairs(shares, bins, fill=True, color=colour, alpha=0.35 if label == "kept" else 0.6, linewidth=0)
            axes.stairs(shares, bins, color=colour, linewidth=1.4, label=label)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(_compact_tick))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(_round_ticks(float(bins[0]), float(bins[-1])))
        _finish_shares(axes, axis)

    return _drawn(name, f"{title}, pool and kept rows", 2.6, draw)


def _round_ticks(low: float, high: float) -> list[float]:
    """Ones, twos and fives between ``low`` and ``high``; only ones where the range spans three decades or more."""
    decades = [10.0**power for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)]
    steps = (1,) if high / low >= 1000 else (1, 2, 5)
    return [step * decade for decade in decades for step in steps if low <= step * decade <= high]


def _finish_shares(axes: Axes, label: str) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(label)
    axes.set_ylabel("share of rows")
    _legend(axes, 2)


def _count_axis(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_compact_tick))


def _finish_losses(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")


def _legend(axes: Axes, columns: int) -> None:
    """The legend above the panel, at its left: it never lies on the data."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderpad=0, handlelength=1.2, columnspacing=1.4
    )


def _name_line(axes: Axes, place: float, text: str) -> None:
    """Write ``text`` beside a vertical line, right of it or left, where there is more room, and above the data."""
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


def _linear_bins(values: np.ndarray) -> np.ndarray:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)


def _compact_tick(value: float, _: int | None) -> str:
    return f"{value / 1000:,g} k" if value >= 1e4 else f"{value:,g}"
