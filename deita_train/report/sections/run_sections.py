"""The sections on the run itself: failures, model cards, time, provenance, recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from deita_train.number_text import count, duration, plural
from deita_train.report.cards.card import StageCard
from deita_train.report.cards.card_names import FOLDER
from deita_train.report.cards.dataset_cards import dataset_cards_of
from deita_train.report.cards.model_cards import cards_of
from deita_train.report.figures.figure import Figure
from deita_train.report.figures.stage_figures import wall_time_by_stage
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.section import Section
from deita_train.report.tables.stage_tables import failure_table, provenance_table
from deita_train.store.model_links import CELLS


def failure_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Which cells failed, why, and what to do."""
    table = failure_table(summary)
    if table is None:
        return None
    number = len(summary.failed_cells)
    text = (
        f"{count(number)} of {plural(len(summary.cells), 'cell')} {'is' if number == 1 else 'are'} incomplete. "
        "Everything finished before the failure is in the tables and figures. Means leave out what is missing, and say "
        "how many cells they are over."
    )
    lacking: dict[str, list[str]] = {}
    for cell in summary.failed_cells:
        labels = ", ".join(label for label in cell.planned if label not in cell.stages)
        lacking.setdefault(labels, []).append(cell.label)
    notes = tuple(f"Without {labels}: {'; '.join(cells)}." for labels, cells in lacking.items())
    return Section("Failed cells", text, (table,), notes=notes)


def cards_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Links to the cards of the base run."""
    models, selections = cards_of(summary), dataset_cards_of(summary)
    cards: list[StageCard] = [*models, *selections]
    if not cards:
        return None
    links = tuple((card.label, f"{FOLDER}/{card.file}") for card in cards if card.is_base)
    kinds = [kind for kind, found in (("tuned model", models), ("selection", selections)) if found]
    text = f"Each {' and each '.join(kinds)} has a README.md for the Hub, and deita-train push uploads both."
    others = len(cards) - len(links)
    if others:
        text += f" {plural(others, 'card')} of the sweep's other cells are beside them, named by artefact."
    return Section("Cards for the Hub", text, notes=_places(summary), links=links)


def _places(summary: RunSummary) -> tuple[str, ...]:
    """Where the models are, by the links in the run's folder."""
    base = [link for link in summary.links if "/" not in link]
    others = [link for link in summary.links if "/" in link]
    notes = []
    if base:
        verb, noun = ("leads", "model") if len(base) == 1 else ("lead", "models")
        notes.append(f"In this run's folder, {' and '.join(base)} {verb} to the {noun} of the base run.")
    if others:
        notes.append(f"The models of the sweep's other cells are in its folder {CELLS}, such as {others[0]}.")
    return tuple(notes)


def time_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Wall time by stage."""
    seconds: dict[str, list[float]] = {}
    for label, item in summary.artefacts().values():
        seconds.setdefault(label, []).append(item.manifest["wall_seconds"])
    if not seconds:
        return None
    named = {f"{label} ({len(of)} runs)" if len(of) > 1 else label: sum(of) for label, of in seconds.items()}
    text = (
        "Wall time from the start of a stage to its published artefact, summed over the stage's runs. An artefact that "
        "several cells share, or that an earlier run left, counts once, with the time it took then."
    )
    total = f"Where {duration(sum(named.values()))} of wall time went."
    figure = Figure("wall-time", "Wall time by stage", text, partial(wall_time_by_stage, named))
    return Section("Time", total, figures=(figure,), notes=(*_retries(summary),))


def _retries(summary: RunSummary) -> Iterator[str]:
    """A sentence for each artefact whose stage was tried again after a fault that passed."""
    for artefact, (label, item) in summary.artefacts().items():
        number = item.metrics.get("retries", 0)
        if number:
            yield (
                f"{label} ({artefact}) was tried again {plural(number, 'time')} after faults that passed, such as a "
                "server that did not answer; the files logs/retries*.jsonl of the artefact say when and why."
            )


def provenance_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Where every number comes from."""
    if not summary.artefacts():
        return None
    table, versions = provenance_table(summary)
    text = (
        "Each artefact is a folder of the store with a manifest that holds its configuration, its parents and the "
        "command that made it."
    )
    notes = tuple(f"Versions {letter}: {text}" for letter, text in versions)
    return Section("Provenance", text, (table,), notes=notes)


def recipe_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """The recipe with every default filled in."""
    return Section("Recipe", "The resolved recipe: every default is written out.", folded=summary.recipe_text)
