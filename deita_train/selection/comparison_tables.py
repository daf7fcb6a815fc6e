"""A comparison of selections as tables of text."""

from deita_train.selection.comparison import Comparison, Composition, Diversity, Measured
from deita_train.selection.composition import Spread
from deita_train.selection.text_table import ABSENT, TextTable, number_text, share_text
from deita_train.selection.trace_columns import QUANTILES

POOL = "whole pool"

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


def compare_table(comparison: Comparison) -> TextTable:
    """One row per selection below one for the whole pool; one column per measure that any of them has."""
    rows = [(POOL, _composition_cells(comparison, comparison.pool))]
    for name, measured in comparison.selections.items():
        rows.append((name, _composition_cells(comparison, measured.composition) | _measured_cells(measured)))
    titles = [title for title in rows[-1][1] if any(cells.get(title, ABSENT) != ABSENT for _, cells in rows)]
    body = tuple((name, *(cells.get(title, ABSENT) for title in titles)) for name, cells in rows)
    note = " ".join(_NOTES[title] for title in titles if title in _NOTES)
    return TextTable("Selections compared", ("selection", *titles), body, note)


def source_table(comparison: Comparison) -> TextTable | None:
    """One row per source of the pool, its share of the pool and of each selection; None where there are no sources."""
    if comparison.pool.sources is None:
        return None
    mixes = [comparison.pool.sources, *(item.composition.sources or {} for item in comparison.selections.values())]
    rows = tuple((source, *(share_text(mix.get(source, 0.0)) for mix in mixes)) for source in comparison.pool.sources)
    return TextTable("Share of the rows by source", ("source", POOL, *comparison.selections), rows)


def overlap_table(comparison: Comparison) -> TextTable:
    """The Jaccard matrix of the selections."""
    names = list(comparison.selections)
    rows = zip(names, comparison.overlap.tolist(), strict=True)
    body = tuple((name, *(number_text(value, 2) for value in values)) for name, values in rows)
    note = "Rows in both selections over rows in either of them (Jaccard)."
    return TextTable("Overlap of the selections", ("selection", *names), body, note)


def quantile_table(comparison: Comparison) -> TextTable:
    """Mean and quantiles of lengths, turns and the similarity to the nearest selected row, selection by selection."""
    rows = [(POOL, *row) for row in _spread_rows(comparison.pool, None)]
    for name, measured in comparison.selections.items():
        rows += [(name, *row) for row in _spread_rows(measured.composition, measured.diversity)]
    columns = ("selection", "quantity", "mean", *(f"{quantile:g}" for quantile in QUANTILES))
    return TextTable("Quantiles", columns, tuple(rows), "From the least value (0) to the greatest (1).")


def _composition_cells(comparison: Comparison, rows: Composition) -> dict[str, str]:
    cells = {
        "rows": number_text(rows.num_rows, 0),
        "mean score": number_text(rows.mean_score, 3),
        "mean characters": number_text(rows.characters.mean, 0),
        "mean tokens": number_text(rows.tokens.mean if rows.tokens else None, 0),
        "mean turns": number_text(rows.turns.mean, 2),
    }
    if comparison.max_length is not None:
        cells[f"text beyond {comparison.max_length:,} {comparison.unit}"] = share_text(rows.beyond)
    return cells


def _measured_cells(measured: Measured) -> dict[str, str]:
    cells = {"source distance": number_text(measured.source_distance, 3)}
    diversity = measured.diversity
    if diversity is not None:
        cells |= {
            "nearest similarity": number_text(diversity.nearest.mean if diversity.nearest else None, 4),
            "facility location": number_text(diversity.facility_location, 4),
            "Vendi score": number_text(diversity.vendi_score, 1),
            "NovelSum": number_text(diversity.novel_sum, 4),
        }
    return cells


def _spread_rows(rows: Composition, diversity: Diversity | None) -> list[tuple[str, ...]]:
    nearest = diversity.nearest if diversity else None
    found = (
        ("characters", rows.characters, 0),
        ("tokens", rows.tokens, 0),
        ("turns", rows.turns, 1),
        ("nearest similarity", nearest, 4),
    )
    return [_spread_cells(title, item, decimals) for title, item, decimals in found if item is not None]


def _spread_cells(title: str, item: Spread, decimals: int) -> tuple[str, ...]:
    return (title, *(number_text(value, decimals) for value in (item.mean, *item.quantiles)))
