"""The section on what became of the pool's rows, from those read to those trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from deita_train.budget import ROWS, SHARE, Budget, form_of, in_words
from deita_train.number_text import count, plural, share
from deita_train.report.figures.figure import Figure
from deita_train.report.figures.funnel_figure import funnel
from deita_train.report.results.funnel import KEPT, READ, TRAINED, Step, funnel_of
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.sections.section import Section
from deita_train.table import Table, numbers, words

_NOTE = (
    "Above each step stands what it left out, and why. Every row is counted once, for the first reason that applies."
)


def funnel_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """How many rows of the base run each step left, and why it left others out."""
    stages = summary.base_cell.stages
    steps = funnel_of(summary.base_cell)
    if not steps:
        return None
    figure = Figure("funnel", "Rows after each step", "Percentages are of the rows read.", partial(funnel, steps))
    text = f"{_rows_text(steps)}{_budget_text(stages['select'].metric('budget'))}{_cut_text(stages.get('sft'))}"
    return Section("From pool to subset", text, (_table(steps),), (figure,))


def _rows_text(steps: Sequence[Step]) -> str:
    left = {step.name: step.left for step in steps}
    kept = f"{count(left[KEPT])} ({share(left[KEPT] / left[READ])})"
    trained = f", and SFT trained on {count(left[TRAINED])}" if TRAINED in left else ""
    return f"Of {plural(left[READ], 'row')} read, the base run kept {kept}{trained}."


def _budget_text(budget: Budget | None) -> str:
    if budget is None:
        return ""
    unit = {ROWS: " rows", SHARE: " of the pool's rows"}.get(form_of(budget), "")
    return f" The budget was {in_words(budget)}{unit}."


def _cut_text(sft: Artefact | None) -> str:
    """How many rows were trained on in part."""
    cut = 0 if sft is None else sft.metric("rows_truncated")
    return f" SFT read {plural(cut, 'row')} only up to the maximal length." if cut else ""


def _table(steps: Sequence[Step]) -> Table:
    """A row for each step with what it left, below the reasons for which it left rows out."""
    rows = []
    for step in steps:
        rows += [(reason, count(-number), "") for reason, number in step.lost.items()]
        rows.append((step.name, "", count(step.left)))
    return Table((*words("rows"), *numbers("left out", "left")), tuple(rows), note=_NOTE)
