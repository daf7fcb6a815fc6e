"""The section on what a run was planned to cost, beside what it took."""

from __future__ import annotations

from collections.abc import Sequence

from deita_train.number_text import compact, decimals, gpu_hours
from deita_train.report.results.groups import Group
from deita_train.report.results.stage_costs import StageCost, stage_costs
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.section import Section
from deita_train.report.tables.cost_table import cost_tables, total_of

TITLE = "Cost"


def cost_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Work, time and memory, planned and measured; nothing where no stage has both."""
    stages = stage_costs(summary)
    return Section(TITLE, _text(stages), tuple(cost_tables(stages))) if stages else None


def _text(stages: Sequence[StageCost]) -> str:
    text = "What was expected of the stages that compute with a model, before the run, beside what they took."
    tokens = total_of(stages, lambda of: of.tokens_planned, lambda of: of.tokens)
    hours = total_of(stages, lambda of: of.hours_planned, lambda of: of.hours)
    if tokens.planned is not None and tokens.measured is not None:
        text += (
            f" Together {compact(tokens.planned)} tokens were planned and {compact(tokens.measured)} computed, "
            f"{decimals(tokens.ratio, 2)} times as many."
        )
    if hours.planned is not None:
        text += (
            f" {gpu_hours(hours.planned)} GPU hours were planned and {gpu_hours(hours.measured)} taken, "
            f"{decimals(hours.ratio, 2)} times as many."
        )
    return text
