"""Tables of the scorers of the base run: how well they rank, how far they are from their labels, and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deita_train.number_text import ABSENT, count, decimals, share, significant
from deita_train.report.results.result_measures import HIGHER, LOWER
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.tables.fitting import turned
from deita_train.table import WORDS, Column, Table, numbers, words

SCORERS = ("complexity", "quality")

_SCORERS = (
    "Rank correlation (Spearman's) and mean absolute error compare the scorer with its labels on rows kept out of its "
    "training; a dash means that nothing was kept out or that the scorer was not trained here. Mass on digits is the "
    "probability that the model gives to the six digits together: far below 100%, it is not answering the question."
)
_CALIBRATION = (
    " Bias is the mean of score minus label. Slope and intercept are those of the least-squares line from score to "
    "label: a slope above 1 means that the scores lie too close together, one below 1 that they lie too far apart."
)
_BY_LABEL = (
    "On the same held-out rows, the mean score of the rows that have each label. A scorer that gives every row its "
    "label would repeat the first column."
)


def scorer_table(summary: RunSummary) -> Table | None:
    """One row per dimension of the base run: how well its scorer does, and how the pool scored."""
    stages = summary.base_cell.stages
    names = [name for name in SCORERS if f"score.{name}" in stages or f"train_scorer.{name}" in stages]
    rows = tuple(
        (name, *_heldout_values(stages.get(f"train_scorer.{name}")), *_score_values(stages.get(f"score.{name}")))
        for name in names
    )
    columns = (
        *words("scorer"),
        *numbers("held-out rows"),
        Column("rank correlation", note=HIGHER),
        Column("mean absolute error", note=LOWER),
        *numbers("turns scored", "without a score", "shortened", "mean score"),
        Column("mass on digits", note=HIGHER),
    )
    return Table(columns, rows, note=_SCORERS) if rows else None


def page_scorer_table(summary: RunSummary) -> Table | None:
    """One column per scorer, with the calibration on held-out rows where one was measured."""
    table = scorer_table(summary)
    if table is None:
        return None
    found = heldout_of(summary)
    if not found:
        return turned(table, "measure")
    columns = (*table.columns, Column("bias", note="best is 0"), Column("slope", note="best is 1"))
    columns += (Column("intercept", note="best is 0"),)
    rows = tuple((*row, *_calibration_values(found.get(row[0]))) for row in table.rows)
    return turned(Table(columns, rows, note=_SCORERS + _CALIBRATION), "measure")


def label_table(summary: RunSummary) -> Table | None:
    """One row per label: of each scorer the mean score of the held-out rows that have it, and their number."""
    found = {name: heldout["by_label"] for name, heldout in heldout_of(summary).items()}
    if not found:
        return None
    means = {name: {entry["label"]: entry for entry in of} for name, of in found.items()}
    labels = sorted({label for of in means.values() for label in of})
    rows = tuple(
        (str(label), *(text for of in means.values() for text in _label_values(of.get(label)))) for label in labels
    )
    columns = [Column(title, note=name) for name in means for title in ("mean score", "rows")]
    return Table((Column("label", WORDS), *columns), rows, "Mean score by label", _BY_LABEL)


def heldout_of(summary: RunSummary) -> dict[str, Mapping[str, Any]]:
    """What the base run measured of each scorer on held-out rows, by dimension."""
    found = {name: summary.base_cell.stages.get(f"train_scorer.{name}") for name in SCORERS}
    measured = {name: item.metric("heldout") for name, item in found.items() if item is not None}
    return {name: heldout for name, heldout in measured.items() if heldout is not None}


def _heldout_values(item: Artefact | None) -> tuple[str, ...]:
    heldout = item.metric("heldout") if item is not None else None
    if heldout is None:
        return (ABSENT,) * 3
    correlation, error = decimals(heldout["rank_correlation"], 3), significant(heldout["mean_absolute_error"])
    return (count(heldout["rows"]), correlation, error)


def _calibration_values(heldout: Mapping[str, Any] | None) -> tuple[str, ...]:
    if heldout is None:
        return (ABSENT,) * 3
    return tuple(decimals(heldout[name], 2) for name in ("bias", "calibration_slope", "calibration_intercept"))


def _label_values(entry: Mapping[str, Any] | None) -> tuple[str, str]:
    return (ABSENT, "0") if entry is None else (decimals(entry["mean_score"], 2), count(entry["rows"]))


def _score_values(item: Artefact | None) -> tuple[str, ...]:
    if item is None:
        return (ABSENT,) * 5
    without = sum(item.metric("nulls").values())
    means = (significant(item.metric("mean")), share(item.metric("digit_mass_mean")))
    return (count(item.metric("scored")), count(without), count(item.metric("shortened")), *means)
