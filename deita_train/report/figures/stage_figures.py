"""Figures of single stages: distributions over the pool and the kept rows, scores, wall time.

Each function draws one panel and returns it as SVG text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from deita_train.number_text import duration
from deita_train.report.figures.drawing import (
    INK,
    MUTED,
    POOL,
    SERIES,
    compact_tick,
    count_axis,
    draw_legend,
    drawn,
    name_vertical,
    series_colour,
)

NUM_BINS = 32
MAX_TURNS_SHOWN = 12


def score_histogram(dimension: str, edges: Sequence[float], counts: Sequence[int], mean: float) -> str:
    """How many turns have which score, in B bins: `edges` [B + 1], `counts` [B]."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=series_colour(0), alpha=0.8)
        axes.axvline(mean, color=INK, linewidth=1)
        name_vertical(axes, mean, f"mean {mean:.2f}")
        count_axis(axes)
        axes.set_xlabel(f"{dimension} score")
        axes.set_ylabel("turns")

    return drawn(f"score-{dimension}", f"Histogram of {dimension} scores", 2.6, draw)


def evol_score_distribution(pool: np.ndarray, selected: np.ndarray) -> str:
    """Evol scores of the pool's rows [N] and of the kept rows [K], as shares of each."""
    pool, selected = pool[np.isfinite(pool)], selected[np.isfinite(selected)]
    return _compared_histogram("evol-score", "Evol score", "evol score", pool, selected, _linear_bins(pool))


def length_distribution(pool: np.ndarray, selected: np.ndarray) -> str:
    """Characters per conversation of the pool [N] and of the kept rows [K], on a logarithmic axis."""
    pool, selected = np.maximum(pool, 1), np.maximum(selected, 1)
    low, high = float(pool.min()), float(pool.max())
    bins = np.geomspace(low, high if high > low else low + 1, NUM_BINS + 1)
    # Powers of ten lose their last bit, and a row outside every bin would be missing from the shares.
    bins[0], bins[-1] = low, max(high, low + 1)
    return _compared_histogram("length", "Length", "characters per conversation", pool, selected, bins, log=True)


def turns_distribution(pool: np.ndarray, selected: np.ndarray) -> str:
    """Turns per conversation of the pool [N] and of the kept rows [K]; one bar holds the long tail."""
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

    return drawn("turns", "Turns per conversation, pool and kept rows", 2.6, draw)


def nearest_similarity_histogram(kept: np.ndarray, rejected: np.ndarray, threshold: float | None) -> str:
    """Each row's highest similarity to the rows kept before it, kept [K] and rejected [R] stacked."""
    bins = _linear_bins(np.concatenate([kept, rejected, [] if threshold is None else [threshold]]))

    def draw(axes: Axes) -> None:
        kept_counts, rejected_counts = np.histogram(kept, bins)[0], np.histogram(rejected, bins)[0]
        axes.stairs(kept_counts, bins, fill=True, color=SERIES[0], label="kept")
        total = kept_counts + rejected_counts
        axes.stairs(total, bins, baseline=kept_counts, fill=True, color=SERIES[1], label="rejected")
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
            name_vertical(axes, threshold, f"threshold {threshold:g}")
        count_axis(axes)
        axes.set_xlabel("cosine similarity to the nearest kept row")
        axes.set_ylabel("rows")
        draw_legend(axes, 2)

    return drawn("nearest-similarity", "Similarity to the nearest kept row", 2.8, draw)


def wall_time_by_stage(seconds: Mapping[str, float]) -> str:
    """Seconds of wall time by stage, from top to bottom in the order of the pipeline."""

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

    return drawn("wall-time", "Wall time by stage", 0.3 + 0.3 * len(seconds), draw)


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
            axes.xaxis.set_major_formatter(FuncFormatter(compact_tick))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(_round_ticks(float(bins[0]), float(bins[-1])))
        _finish_shares(axes, axis)

    return drawn(name, f"{title}, pool and kept rows", 2.6, draw)


def _round_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between `low` and `high`; only 1 for a range of three decades or more."""
    decades = [10.0**power for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)]
    steps = (1,) if high / low >= 1000 else (1, 2, 5)
    return [step * decade for decade in decades for step in steps if low <= step * decade <= high]


def _finish_shares(axes: Axes, label: str) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(label)
    axes.set_ylabel("share of rows")
    draw_legend(axes, 2)


def _linear_bins(values: np.ndarray) -> np.ndarray:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
