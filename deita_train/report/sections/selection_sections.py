"""The section on what the base run selected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from deita_train.number_text import count, decimals, plural
from deita_train.report.figures.figure import Figure
from deita_train.report.figures.stage_figures import (
    evol_score_distribution,
    length_distribution,
    nearest_similarity_histogram,
    turns_distribution,
)
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary, SelectionTrace
from deita_train.report.sections.section import Section
from deita_train.report.sections.selection_examples import shown_examples
from deita_train.report.tables.stage_tables import strata_table
from deita_train.selection.unrankable import CONTAMINATED, IN_WORDS

# The columns that methods read where `select.column` names none.
_OWN_COLUMNS = {"ifd": "ifd", "perplexity": "perplexity"}


def selection_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """What the base run kept of its pool."""
    select, trace = summary.base_cell.stages.get("select"), summary.trace
    if select is None or trace is None:
        return None
    strata = strata_table(select)
    tables = () if strata is None else (strata,)
    figures = tuple(_selection_figures(select, trace))
    examples = () if summary.examples is None else shown_examples(summary.examples)
    return Section("Selection", _selection_text(summary, select, trace), tables, figures, examples)


def _selection_text(summary: RunSummary, select: Artefact, trace: SelectionTrace) -> str:
    number = f"{count(trace.kept.sum())} of the pool's {plural(select.metric('rows_in'), 'row')}"
    text = f"The base run kept {number} with the method {select.metric('method')}.{_unranked_text(select)}"
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
            f"conversations were longer than the encoder reads.{_saved_text(embed)}"
        )
    return text + _measured_text(summary.base_cell.stages.get("perplexity")) + _lacking_text(select)


def _saved_text(embed: Artefact) -> str:
    """How many rows were never embedded because the walk ended before them; empty where all were."""
    embedded, saved = embed.metrics.get("rows_embedded"), embed.metrics.get("rows_saved")
    if not saved:
        return ""
    return (
        f" Only the {count(embedded)} rows that the walk needed were embedded; {count(saved)} of "
        f"{count(embedded + saved)} were saved."
    )


def _unranked_text(select: Artefact) -> str:
    """How many rows were removed or could not be ranked, and why; empty where all could."""
    lost = {reason: number for reason, number in select.manifest["drops"].items() if reason in IN_WORDS and number}
    repeats = lost.pop(CONTAMINATED, 0)
    removed = f" {plural(repeats, 'row')} that {IN_WORDS[CONTAMINATED]} were removed first." if repeats else ""
    if not lost:
        return removed
    reasons = ", ".join(f"{count(number)} {_why(select, reason)}" for reason, number in lost.items())
    return f"{removed} {count(sum(lost.values()))} could not be ranked: {reasons}."


def _lacking_text(select: Artefact) -> str:
    """Of which of the pool's own numbers the means leave rows out; empty where every row has all of them."""
    return "".join(
        f" The mean {name} is over the rows that have one: {count(of['lacking'])} of the pool's lack it."
        for name, of in select.metric("columns").items()
        if of.get("lacking")
    )


def _why(select: Artefact, reason: str) -> str:
    """A reason in words; a number that is lacking with the name of its column."""
    column = select.manifest["config"].get("column") or _OWN_COLUMNS.get(select.metric("method"))
    return f"have no {column}" if reason == "no_value" and column else IN_WORDS[reason]


def _measured_text(perplexity: Artefact | None) -> str:
    """How many rows' answers were measured under a model, wholly and in part, and why the others were not."""
    if perplexity is None:
        return ""
    metrics = perplexity.metrics
    text = f" Perplexity and IFD are known of {count(metrics['measured'])} of {plural(metrics['rows'], 'row')}"
    lost = {reason: number for reason, number in metrics["nulls"].items() if number}
    if lost:
        named = ", ".join(f"{count(number)} {reason.replace('_', ' ')}" for reason, number in lost.items())
        text += f" (without: {named})"
    cut = metrics.get("truncated")
    return f"{text}; {plural(cut, 'row')} were cut at {count(metrics['max_length'])} tokens." if cut else f"{text}."


def _selection_figures(select: Artefact, trace: SelectionTrace) -> list[Figure]:
    kept, panels = trace.kept, []
    if trace.evol_score is not None and np.isfinite(trace.evol_score).any():
        draw = partial(evol_score_distribution, trace.evol_score, trace.evol_score[kept])
        text = "Complexity times quality, summed over the turns. Bars are shares of the pool and of the kept rows."
        panels.append(Figure("evol-score", "Evol score", text, draw))
    if trace.nearest_similarity is not None and np.isfinite(trace.nearest_similarity).any():
        panels.append(_similarity_figure(trace.nearest_similarity, kept, select.metric("threshold")))
    if trace.num_chars is not None:
        draw = partial(length_distribution, trace.num_chars, trace.num_chars[kept])
        medians = _beside(count(float(np.median(values))) for values in (trace.num_chars[kept], trace.num_chars))
        text = f"Median number of characters: {medians}. The axis is logarithmic."
        panels.append(Figure("length", "Length", text, draw))
    if trace.num_turns is not None:
        draw = partial(turns_distribution, trace.num_turns, trace.num_turns[kept])
        means = _beside(decimals(float(values.mean()), 1) for values in (trace.num_turns[kept], trace.num_turns))
        text = f"Mean number of turns: {means}. A sum over turns favours long conversations; this shows by how much."
        panels.append(Figure("turns", "Turns", text, draw))
    return panels


def _similarity_figure(nearest: np.ndarray, kept: np.ndarray, threshold: float | None) -> Figure:
    reached = np.isfinite(nearest)
    draw = partial(nearest_similarity_histogram, nearest[reached & kept], nearest[reached & ~kept], threshold)
    text = (
        "For each row that the walk reached, its highest cosine similarity to the rows kept before it. It covers these "
        f"{count(reached.sum())} rows and not the other {count((~reached).sum())} of the pool. Mass close to the "
        "threshold means that the result depends on its exact value."
    )
    return Figure("nearest-similarity", "Nearest kept row", text, draw)


def _beside(texts: Iterable[str]) -> str:
    kept, pool = texts
    return f"{kept} among the kept rows, {pool} in the pool"
