"""The section on the labels that a chat model made: evolved and ranked versions of seeds, direct scores, tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deita_train.number_text import count, decimals, plural
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.sections.section import Section
from deita_train.report.tables.label_tables import ASKING, Ranked, label_tables, spending_table
from deita_train.report.tables.scorer_tables import SCORERS

TITLE = "Labels by a chat model"

_RANKED = (
    "A chat model evolves each seed step by step, complexity in the instruction and quality in the response, and then "
    "scores all versions of a seed together from 1 to 6. These scores are the labels that a scorer is trained on. "
    "Rising scores are what the operations are meant to bring about and no proof that the judge is right: read the "
    "examples."
)
_RATED = "A chat model was asked about each row of the pool."


def label_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """What the base run asked of a chat model, and whether its answers can be believed."""
    stages = summary.base_cell.stages
    if not any(label in stages for label in ASKING):
        return None
    ranked = [
        Ranked(name, stages[f"evolve.{name}"], stages[f"rank.{name}"])
        for name in SCORERS
        if f"evolve.{name}" in stages and f"rank.{name}" in stages
    ]
    text = _RANKED if any(label.startswith(("evolve.", "rank.")) for label in stages) else _RATED
    tables = (*label_tables(ranked), spending_table(stages))
    warnings = _warnings(ranked)
    if warnings:
        text += " There is reason to doubt the judge: read the warnings below the tables."
    return Section(TITLE, text, tables, notes=(*warnings, *_rated_notes(stages)))


def _warnings(ranked: Sequence[Ranked]) -> list[str]:
    """What is suspicious about the judge, by dimension."""
    return [
        f"Warning ({warning['name']}), {of.dimension}: {warning['text']}"
        for of in ranked
        for warning in of.ranks.metric("warnings")
    ]


def _rated_notes(stages: Mapping[str, Artefact]) -> list[str]:
    """A line on the direct scores and one on the tags."""
    notes = []
    direct, tags = stages.get("direct_score"), stages.get("instag")
    if direct is not None:
        levels = ", ".join(f"{level}: {count(number)}" for level, number in direct.metric("scores").items())
        mean = decimals(direct.metric("mean"), 2)
        notes.append(
            f"direct_score: {_answered(direct)} rated, mean {mean}; rows by score: {levels}.{_without(direct)}"
        )
    if tags is not None:
        notes.append(
            f"instag: {_answered(tags)} tagged, with {plural(tags.metric('tags'), 'different tag')}.{_without(tags)}"
        )
    return notes


def _answered(item: Artefact) -> str:
    rows = item.metric("rows")
    return f"{count(rows - sum(item.metric('nulls').values()))} of {count(rows)} rows"


def _without(item: Artefact) -> str:
    """Why other rows have no value; empty where all have one."""
    reasons = ", ".join(f"{reason} ({count(number)})" for reason, number in item.metric("nulls").items())
    return f" Rows without: {reasons}." if reasons else ""
