"""The section on how far the scores of the base run can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from deita_train.number_text import count, plural, share
from deita_train.report.figures.calibration_figure import calibration_by_label
from deita_train.report.figures.figure import Figure
from deita_train.report.figures.stage_figures import score_histogram
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.sections.section import Section
from deita_train.report.tables.scorer_tables import SCORERS, heldout_of, label_table, page_scorer_table


def scorer_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """How far the scores can be trusted, and how they are distributed."""
    scorers, labels = page_scorer_table(summary), label_table(summary)
    if scorers is None:
        return None
    text = (
        "Each turn of each conversation is scored from 1 to 6 in one forward pass: the expectation over the six digits."
    )
    tables = (scorers, labels) if labels else (scorers,)
    found = ((name, summary.base_cell.stages.get(f"score.{name}")) for name in SCORERS)
    figures = [_score_figure(name, item) for name, item in found if item is not None]
    heldout = heldout_of(summary)
    if heldout:
        figures.append(_calibration_figure(heldout))
    return Section("Scorers", text, tables, tuple(figures), notes=tuple(_score_notes(summary)))


def _score_figure(dimension: str, item: Artefact) -> Figure:
    histogram = item.metric("histogram")
    draw = partial(score_histogram, dimension, histogram["edges"], histogram["counts"], item.metric("mean"))
    text = (
        f"Scores of {plural(item.metric('scored'), 'turn')} of the pool. A narrow peak means that the scorer hardly "
        "distinguishes the turns."
    )
    return Figure(f"score-{dimension}", f"{dimension.capitalize()} scores", text, draw)


def _calibration_figure(heldout: Mapping[str, Mapping[str, Any]]) -> Figure:
    draw = partial(calibration_by_label, {name: of["by_label"] for name, of in heldout.items()})
    text = (
        "The mean score of the held-out rows that have each label. On the dashed line score and label are equal; a "
        "flat line means that the scores hardly follow the labels."
    )
    return Figure("calibration", "Calibration", text, draw)


def _score_notes(summary: RunSummary) -> list[str]:
    """Reasons to doubt the scores, by dimension: a model that may be no scorer, turns without a score."""
    notes = []
    for name in SCORERS:
        item = summary.base_cell.stages.get(f"score.{name}")
        if item is None:
            continue
        if item.metric("wrong_model_suspected"):
            mass = share(item.metric("digit_mass_mean"))
            notes.append(
                f"The {name} scorer looks like a wrong model: it puts only {mass} of its probability on the digits 1 "
                f"to 6. Check scorers.{name} before trusting these scores."
            )
        nulls = {reason: number for reason, number in item.metric("nulls").items() if number}
        if nulls:
            reasons = ", ".join(f"{reason} ({count(number)})" for reason, number in nulls.items())
            notes.append(f"Turns without a {name} score: {reasons}.")
    return notes
