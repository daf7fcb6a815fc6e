"""The sections on the recipe as written: what it selected, and how far the scores can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deita_train.report.figures import stage_figures as figures
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary, SelectionTrace
from deita_train.report.sections.layout import Figure, Section
from deita_train.report.tables import stage_tables as tables
from deita_train.report.tables.formats import count, plural

_CALIBRATION = (
    "Calibration on the same held-out rows. Bias is the mean of score minus label. Slope and intercept are those of "
    "the line of least squares from score to label: a slope above 1 says that the scores lie too close together, one "
    "below 1 too far apart. Under each label stands the mean score of the rows that have it, and how many these are."
)


def selection_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """What the recipe as written kept, against what it could have kept."""
    select, trace = summary.base_cell.stages.get("select"), summary.trace
    if select is None or trace is None:
        return None
    rejections = tables.rejection_table(summary)
    explanation = (
        "Examples spread evenly over the rejected rows, from the nearest pair to the closest call. Similarity is the "
        "cosine of the two embeddings."
    )
    return Section(
        "Selection",
        _selection_text(summary, select, trace),
        ((rejections, explanation),) if rejections else (),
        tuple(_selection_figures(select, trace)),
    )


def scorer_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """How far the scores can be trusted, and how they are distributed."""
    table = tables.scorer_table(summary)
    if table is None:
        return None
    explanation = (
        "Rank correlation (Spearman's) and mean absolute error compare the scorer with its labels on rows kept out of "
        "its training; a dash means that nothing was kept out or that the scorer was not trained here. Mass on digits "
        "is the probability that the model gives to the six digits together: far below 100%, it is not answering the "
        "question."
    )
    text = (
        "Each turn of each conversation is scored from 1 to 6 in one forward pass: the expectation over the six digits."
    )
    found = ((name, summary.base_cell.stages.get(f"score.{name}")) for name in ("complexity", "quality"))
    panels = tuple(_score_figure(name, item) for name, item in found if item is not None)
    calibration = tables.calibration_table(summary)
    shown = ((table, explanation), *(((calibration, _CALIBRATION),) if calibration else ()))
    return Section("Scorers", text, shown, panels, notes=tuple(_score_notes(summary)))


def _selection_text(summary: RunSummary, select: Artefact, trace: SelectionTrace) -> str:
    number = f"{count(trace.kept.sum())} of {plural(len(trace.kept), 'row')}"
    text = f"The recipe as written kept {number} with the method {select.metric('method')}."
    threshold, rejected = select.metric("threshold"), select.metric("rejected")
    if threshold is not None and rejected is not None:
        text += (
            f" Rows are taken in the method's order; a row whose similarity to a row already kept is above "
            f"{threshold:g} is passed over. The walk saw {plural(select.metric('seen'), 'row')} and passed over "
            f"{count(rejected)}."
        )
    embed = summary.base_cell.stages.get("embed")
    if embed is not None:
        rows, dimensions = embed.metric("rows"), embed.metric("dimensions")
        text += (
            f" Embeddings have {count(dimensions)} dimensions; {count(embed.metric('truncated'))} of {count(rows)} "
            f"conversations were longer than the encoder reads."
        )
    return text


def _selection_figures(select: Artefact, trace: SelectionTrace) -> list[Figure]:
    panels = []
    if trace.evol_score is not None and np.isfinite(trace.evol_score).any():
        svg = figures.evol_score_distribution(trace.evol_score, trace.evol_score[trace.kept])
        text = "Complexity times quality, summed over the turns. Bars are shares of the pool and of the kept rows."
        panels.append(Figure("evol-score", "Evol score", text, svg))
    if trace.nearest_similarity is not None and np.isfinite(trace.nearest_similarity).any():
        panels.append(_similarity_figure(select, trace))
    if trace.num_chars is not None:
        svg = figures.length_distribution(trace.num_chars, trace.num_chars[trace.kept])
        text = f"Median number of characters: {_medians(trace.num_chars, trace.kept)}. The axis is logarithmic."
        panels.append(Figure("length", "Length", text, svg))
    if trace.num_turns is not None:
        svg = figures.turns_distribution(trace.num_turns, trace.num_turns[trace.kept])
        means = (
            f"{trace.num_turns[trace.kept].mean():.1f} among the kept rows, {trace.num_turns.mean():.1f} in the pool"
        )
        text = f"Mean number of turns: {means}. A sum over turns favours long conversations; this shows by how much."
        panels.append(Figure("turns", "Turns", text, svg))
    return panels


def _similarity_figure(select: Artefact, trace: SelectionTrace) -> Figure:
    assert trace.nearest_similarity is not None, "asked for only where the method wrote similarities"
    reached = np.isfinite(trace.nearest_similarity)
    kept, rejected = (trace.nearest_similarity[reached & side] for side in (trace.kept, ~trace.kept))
    svg = figures.nearest_similarity_histogram(kept, rejected, select.metric("threshold"))
    text = (
        "For each row that the walk reached, its highest cosine similarity to the rows kept before it. Mass close to "
        "the threshold means that the result depends on its exact value."
    )
    return Figure("nearest-similarity", "Nearest kept row", text, svg)


def _medians(values: np.ndarray, kept: np.ndarray) -> str:
    return f"{count(float(np.median(values[kept])))} among the kept rows, {count(float(np.median(values)))} in the pool"


def _score_figure(dimension: str, item: Artefact) -> Figure:
    histogram = item.metric("histogram")
    svg = figures.score_histogram(dimension, histogram["edges"], histogram["counts"], item.metric("mean"))
    text = (
        f"Scores of {plural(item.metric('scored'), 'turn')} of the pool. A narrow peak means that the scorer hardly "
        f"tells the turns apart."
    )
    return Figure(f"score-{dimension}", f"{dimension.capitalize()} scores", text, svg)


def _score_notes(summary: RunSummary) -> list[str]:
    """What stands against the scores, dimension by dimension: a model that is no scorer, turns without a score."""
    notes = []
    for name in ("complexity", "quality"):
        item = summary.base_cell.stages.get(f"score.{name}")
        if item is None:
            continue
        if item.metric("wrong_model_suspected"):
            notes.append(
                f"The {name} scorer looks like a wrong model: it puts only {item.metric('digit_mass_mean'):.1%} of its "
                f"probability on the digits 1 to 6. Check scorers.{name} before trusting these scores."
            )
        nulls = {reason: number for reason, number in item.metric("nulls").items() if number}
        if nulls:
            reasons = ", ".join(f"{reason} ({count(number)})" for reason, number in nulls.items())
            notes.append(f"Turns without a {name} score: {reasons}.")
    return notes
