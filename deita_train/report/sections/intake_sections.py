"""The sections on the data that the base run read: the pool, the preference pairs."""

from __future__ import annotations

from collections.abc import Sequence

from deita_train.data.intake_notes import intake_notes
from deita_train.number_text import count, decimals, plural
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.sections.section import Section
from deita_train.report.tables.stage_tables import drop_table
from deita_train.report.texts import shortened

EXAMPLES_PER_REASON = 2
EXAMPLE_CHARS = 200
PAIRS = {"dpo_data": "training pairs", "dpo_pairs": "selected pairs", "heldout_pairs": "held-out pairs"}


def pool_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """How many rows were read, and what was dropped and why."""
    pool = summary.base_cell.stages.get("pool")
    if pool is None:
        return None
    clean = summary.base_cell.stages.get("clean_pool")
    funnel = [("pool", pool), *([] if clean is None else [("clean pool", clean)])]
    drops = drop_table(
        funnel, "Rows that cannot be trained on, or were not drawn, are left out before anything is scored."
    )
    last = funnel[-1][1]
    text = _read_text("row", pool)
    text += "" if clean is None else f", {count(clean.metric('rows_out'))} left once the pool was cleaned"
    text += f"; a conversation has {decimals(last.metric('mean_turns'), 1)} turns on average."
    text += "" if drops else " No row was dropped."
    quotes = tuple(quote for _, item in funnel for quote in _quotes(item))
    return Section("Pool", text, (drops,) if drops else (), quotes=quotes, notes=tuple(intake_notes(pool.metrics)))


def pairs_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """How many preference pairs were read, and what was dropped and why."""
    stages = summary.base_cell.stages
    found = [(name, stages[label]) for label, name in PAIRS.items() if label in stages]
    if not found:
        return None
    drops = drop_table(found, "A pair is a prompt, an answer that was chosen and one that was rejected.")
    text = " ".join(f"{name[0].upper()}{name[1:]}: {_read_text('pair', item)}." for name, item in found)
    text += "" if drops else " None was dropped."
    quotes = tuple((f"{reason} ({name})", examples) for name, item in found for reason, examples in _quotes(item))
    notes = tuple(f"{name}: {note}" for name, item in found for note in intake_notes(item.metrics))
    return Section("Preference pairs", text, (drops,) if drops else (), quotes=quotes, notes=notes)


def _read_text(noun: str, item: Artefact) -> str:
    """How many were read, usable and, where the recipe draws some of them, drawn."""
    kept, left = item.metric("rows_out"), item.metric("drops").get("not_sampled", 0)
    drawn = f", {count(kept)} of them drawn" if left else ""
    return f"{plural(item.metric('rows_in'), noun)} read, {count(kept + left)} usable{drawn}"


def _quotes(item: Artefact) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """A few shortened examples of dropped rows for each reason."""
    return tuple(
        (reason, tuple(shortened(example, EXAMPLE_CHARS) for example in examples[:EXAMPLES_PER_REASON]))
        for reason, examples in item.metric("examples").items()
        if examples
    )
