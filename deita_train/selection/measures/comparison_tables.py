"""A comparison of selections as tables of text."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from deita_train.number_text import ABSENT, decimals, share
from deita_train.selection.measures.compared import Comparison, Composition, Diversity
from deita_train.selection.measures.composition import Spread
from deita_train.selection.measures.differences import difference_table, seed_table
from deita_train.selection.trace.trace_columns import QUANTILES
from deita_train.table import Table, numbers, words

POOL = "whole pool"
# With more sources than this the smallest ones stand in one column.
MAX_SOURCES = 6
# With their names these fill 80 columns at most.
OVERLAPS_SIDE_BY_SIDE = 8

_NOTES = {
    "source distance": "Source distance: total variation distance from the pool's mix of sources, 0 where it is alike.",
    "nearest similarity": "Nearest similarity: mean cosine of a selected row and the other one nearest to it; lower is "
    "more diverse.",
    "facility location": "Facility location: mean cosine of a row of the pool and the selected row nearest to it; "
    "higher covers the pool better.",
    "Vendi score": "Vendi score: effective number of different rows; higher is more diverse.",
    "NovelSum": "NovelSum: distances to the other selected rows, near ones and dense places weighing more; higher is "
    "more diverse.",
}


def shown_tables(comparison: Comparison) -> list[Table]:
    """The tables for a terminal, those that the comparison has."""
    tables = (
        composition_table(comparison),
        diversity_table(comparison),
        seed_table(comparison),
        difference_table(comparison),
        source_table(comparison),
    )
    return [*(table for table in tables if table is not None), *overlap_tables(comparison)]


def all_tables(comparison: Comparison) -> list[Table]:
    """Those of ``shown_tables``, and the quantiles."""
    return [*shown_tables(comparison), quantile_table(comparison)]


def composition_table(comparison: Comparison) -> Table:
    """One row per selection below one for the whole pool; one column per quantity that the pool has."""
    rows = [(POOL, _composition_cells(comparison, comparison.pool))]
    for name, measured in comparison.selections.items():
        distance = {"source distance": decimals(measured.source_distance, 3)} if _has_sources(comparison) else {}
        rows.append((name, _composition_cells(comparison, measured.composition) | distance))
    return _table_of("What the selections are made of", rows)


def diversity_table(comparison: Comparison) -> Table | None:
    """One row per selection, one column per measure of diversity; None for a comparison without embeddings."""
    found = [(name, item.diversity) for name, item in comparison.selections.items()]
    rows = [(name, _diversity_cells(diversity)) for name, diversity in found if diversity is not None]
    return _table_of("How diverse the selections are", rows) if rows else None


def source_table(comparison: Comparison) -> Table | None:
    """One row per selection, one column per source, the pool's largest first; None for a pool of one source or none."""
    if not _has_sources(comparison):
        return None
    pool = comparison.pool.sources or {}
    named = list(pool) if len(pool) <= MAX_SOURCES else list(pool)[: MAX_SOURCES - 1]
    rows = [(POOL, pool), *((name, item.composition.sources or {}) for name, item in comparison.selections.items())]
    body = tuple((name, *(share(value) for value in _source_shares(mix, named, pool))) for name, mix in rows)
    rest = len(pool) - len(named)
    columns = (*words("selection"), *numbers(*named, *([f"{rest:,} others"] if rest else [])))
    return Table(columns, body, "Share of the rows by source")


def overlap_tables(comparison: Comparison) -> list[Table]:
    """The Jaccard matrix; the columns have the rows' numbers, and so many stand side by side as fit a terminal."""
    names = [f"{number} {name}" for number, name in enumerate(comparison.selections, start=1)]
    starts = range(0, len(names), OVERLAPS_SIDE_BY_SIDE)
    tables = [_overlaps(names, comparison.overlap[:, start : start + OVERLAPS_SIDE_BY_SIDE], start) for start in starts]
    tables[-1] = replace(tables[-1], note="Rows in both selections over rows in either of them (Jaccard).")
    return tables


def _overlaps(names: list[str], overlap: np.ndarray, start: int) -> Table:
    """Some columns of the matrix, `[N, K]`, of the selections from `start` on."""
    body = tuple(
        (name, *(decimals(value, 2) for value in values)) for name, values in zip(names, overlap.tolist(), strict=True)
    )
    shown = range(start + 1, start + 1 + overlap.shape[1])
    part = "" if len(names) == len(shown) else f", {shown[0]} to {shown[-1]}"
    columns = (*words("selection"), *numbers(*map(str, shown)))
    return Table(columns, body, f"Overlap of the selections{part}")


def quantile_table(comparison: Comparison) -> Table:
    """Mean and quantiles of lengths, turns and the similarity to the nearest selected row, selection by selection."""
    rows = [(POOL, *row) for row in _spread_rows(comparison.pool, None)]
    for name, measured in comparison.selections.items():
        rows += [(name, *row) for row in _spread_rows(measured.composition, measured.diversity)]
    columns = (*words("selection", "quantity"), *numbers("mean", *(f"{quantile:g}" for quantile in QUANTILES)))
    return Table(columns, tuple(rows), "Quantiles", "From the least value (0) to the greatest (1).")


def _table_of(title: str, rows: list[tuple[str, dict[str, str]]]) -> Table:
    """Named cells as a table of the columns that any row has a value in."""
    titles = [title for title in rows[-1][1] if any(cells.get(title, ABSENT) != ABSENT for _, cells in rows)]
    body = tuple((name, *(cells.get(title, ABSENT) for title in titles)) for name, cells in rows)
    note = " ".join(_NOTES[title] for title in titles if title in _NOTES)
    return Table((*words("selection"), *numbers(*titles)), body, title, note)


def _has_sources(comparison: Comparison) -> bool:
    return comparison.pool.sources is not None and len(comparison.pool.sources) > 1


def _source_shares(mix: Mapping[str, float], named: list[str], pool: Mapping[str, float]) -> list[float]:
    """The shares of the named sources, and of the pool's others together where there are any."""
    others = [source for source in pool if source not in named]
    rest = [sum(mix.get(source, 0.0) for source in others)] if others else []
    return [*(mix.get(source, 0.0) for source in named), *rest]


def _composition_cells(comparison: Comparison, rows: Composition) -> dict[str, str]:
    cells = {
        "rows": decimals(rows.num_rows, 0),
        "total tokens": decimals(rows.total_tokens, 0),
        **{f"mean {name}": decimals(mean, 4) for name, mean in rows.columns.items()},
        "mean score": decimals(rows.mean_score, 3),
        "mean characters": decimals(rows.characters.mean, 0),
        "mean tokens": decimals(rows.tokens.mean if rows.tokens else None, 0),
        "mean turns": decimals(rows.turns.mean, 2),
    }
    if comparison.max_length is not None:
        cells[f"text beyond {comparison.max_length:,} {comparison.unit}"] = share(rows.beyond)
    return cells


def _diversity_cells(diversity: Diversity) -> dict[str, str]:
    return {
        "nearest similarity": decimals(diversity.nearest.mean if diversity.nearest else None, 4),
        "facility location": decimals(diversity.facility_location, 4),
        "Vendi score": decimals(diversity.vendi_score, 1),
        "NovelSum": decimals(diversity.novel_sum, 4),
    }


def _spread_rows(rows: Composition, diversity: Diversity | None) -> list[tuple[str, ...]]:
    nearest = diversity.nearest if diversity else None
    found = (
        ("characters", rows.characters, 0),
        ("tokens", rows.tokens, 0),
        ("turns", rows.turns, 1),
        ("nearest similarity", nearest, 4),
    )
    return [_spread_cells(title, item, places) for title, item, places in found if item is not None]


def _spread_cells(title: str, item: Spread, places: int) -> tuple[str, ...]:
    return (title, *(decimals(value, places) for value in (item.mean, *item.quantiles)))
