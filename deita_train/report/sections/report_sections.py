"""The report's sections in the order of reading, and those on data, time and origin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deita_train.report.cards.model_cards import card_links, cards_of
from deita_train.report.figures import stage_figures as figures
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary, shortened
from deita_train.report.sections.comparison_section import comparison_section
from deita_train.report.sections.layout import Figure, Section
from deita_train.report.sections.outcome_sections import result_section, training_section
from deita_train.report.sections.selection_sections import scorer_section, selection_section
from deita_train.report.tables import stage_tables as tables
from deita_train.report.tables.formats import count, duration, plural

EXAMPLES_PER_REASON = 2
EXAMPLE_CHARS = 200
PAIRS = {"dpo_data": "training pairs", "heldout_pairs": "held-out pairs"}


def sections_of(summary: RunSummary, groups: Sequence[Group]) -> list[Section]:
    """The sections for which the run has data."""
    builders: tuple[Callable[[RunSummary, Sequence[Group]], Section | None], ...] = (
        result_section,
        failure_section,
        selection_section,
        comparison_section,
        scorer_section,
        training_section,
        pool_section,
        pairs_section,
        cards_section,
        time_section,
        provenance_section,
        recipe_section,
    )
    built = (build(summary, groups) for build in builders)
    return [section for section in built if section is not None]


def failure_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Which cells failed, why, and what to do."""
    table = tables.failure_table(summary)
    if table is None:
        return None
    number = len(summary.failed_cells)
    text = (
        f"{count(number)} of {plural(len(summary.cells), 'cell')} {'is' if number == 1 else 'are'} incomplete. What "
        "was made before the failure is in the tables and figures. What is missing is in no mean, and a mean that "
        "lacks a cell says over how many it is."
    )
    lacking: dict[str, list[str]] = {}
    for cell in summary.failed_cells:
        labels = ", ".join(label for label in cell.planned if label not in cell.stages)
        lacking.setdefault(labels, []).append(cell.label)
    notes = tuple(f"Without {labels}: {'; '.join(cells)}." for labels, cells in lacking.items())
    return Section(
        "Failed cells",
        text,
        ((table, "One row for each stage that failed; what reads it was not made."),),
        notes=notes,
    )


def pool_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """What was read, what was dropped and why."""
    pool = summary.base_cell.stages.get("pool")
    if pool is None:
        return None
    text = f"{_read_text('row', pool)}; a conversation has {pool.metric('mean_turns'):.1f} turns on average."
    drops = tables.drop_table([("pool", pool)])
    text += "" if drops else " No row was dropped."
    left_out = pool.metric("columns_left_out")
    notes = (f"Columns of the source that were not carried along: {', '.join(left_out)}.",) if left_out else ()
    explanation = "Rows that cannot be trained on are dropped before anything is scored."
    return Section("Pool", text, ((drops, explanation),) if drops else (), quotes=_quotes(pool), notes=notes)


def pairs_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Preference pairs: what was read, what was dropped and why."""
    found = [
        (name, summary.base_cell.stages[label]) for label, name in PAIRS.items() if label in summary.base_cell.stages
    ]
    if not found:
        return None
    text = " ".join(f"{name[0].upper()}{name[1:]}: {_read_text('pair', item)}." for name, item in found)
    drops = tables.drop_table(found)
    text += "" if drops else " None was dropped."
    explanation = "A pair is a prompt, an answer that was chosen and one that was rejected."
    quotes = tuple((f"{reason} ({name})", examples) for name, item in found for reason, examples in _quotes(item))
    return Section("Preference pairs", text, ((drops, explanation),) if drops else (), quotes=quotes)


def cards_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Where the model cards lie."""
    cards = cards_of(summary)
    if not cards:
        return None
    text, links = card_links(cards)
    return Section("Model cards", text, links=links)


def time_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Wall time by stage."""
    if not summary.artefacts():
        return None
    seconds: dict[str, float] = {}
    number: dict[str, int] = {}
    for label, item in summary.artefacts().values():
        seconds[label] = seconds.get(label, 0.0) + item.manifest["wall_seconds"]
        number[label] = number.get(label, 0) + 1
    named = {f"{label} ({number[label]} runs)" if number[label] > 1 else label: wall for label, wall in seconds.items()}
    text = (
        "Wall time from the start of a stage to its published artefact, summed over the stage's runs. An artefact that "
        "several cells share, or that an earlier run left, is counted once, with the time that it took then."
    )
    svg = figures.wall_time_by_stage(named)
    total = f"Where {duration(sum(seconds.values()))} of wall time went."
    return Section("Time", total, figures=(Figure("wall-time", "Wall time by stage", text, svg),))


def provenance_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Where every number comes from."""
    if not summary.artefacts():
        return None
    table, versions = tables.provenance_table(summary)
    text = (
        "Each artefact is a folder of the store with a manifest that holds its configuration, its parents and the "
        "command that made it."
    )
    explanation = "The digest is the beginning of the manifest's content digest: equal digests mean equal content."
    notes = tuple(f"Versions {letter}: {text}" for letter, text in versions)
    return Section("Provenance", text, ((table, explanation),), notes=notes)


def recipe_section(summary: RunSummary, _: Sequence[Group]) -> Section:
    """The recipe with every default filled in."""
    return Section("Recipe", "The resolved recipe: every default is written out.", folded=summary.recipe_text)


def _read_text(noun: str, item: Artefact) -> str:
    return f"{plural(item.metric('rows_in'), noun)} read, {count(item.metric('rows_out'))} usable"


def _quotes(item: Artefact) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Dropped rows, a few for each reason, shortened."""
    return tuple(
        (reason, tuple(shortened(example, EXAMPLE_CHARS) for example in examples[:EXAMPLES_PER_REASON]))
        for reason, examples in item.metric("examples").items()
        if examples
    )
