"""Prints a plan, the results of a run, and runs side by side."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from deita_train.budget import ROWS, form_of, in_words
from deita_train.commands.cost_lines import (
    cost_sentences,
    cost_table,
    count_sentence,
    total_sentences,
    unresolved_sentences,
)
from deita_train.commands.plan_tree import StageLine, print_stages
from deita_train.commands.printed_table import print_table
from deita_train.cost.gpus import Gpu
from deita_train.plan.asked import asked_lines
from deita_train.plan.cost.costs import PlanCost, plan_cost
from deita_train.plan.disk import disk_lines
from deita_train.plan.node import UNRESOLVED
from deita_train.plan.plan import Plan, PlannedStage, planned_stages, store_folder
from deita_train.plan.unread import unread_lines
from deita_train.stages.facts import saved_rows
from deita_train.store.atomic_io import read_json
from deita_train.table import Table


def print_plan(
    console: Console, plan: Plan, *, gpu: Gpu | None = None, share: float | None = None, with_keys: bool = False
) -> None:
    """Print each artefact with its status and reason, what it costs, notes, and which options print commands.

    Args:
        console: where to.
        plan: the plan.
        gpu: the kind of GPU that hours and memory are for; None for none.
        share: of its peak, in place of what this project measured.
        with_keys: whether to print the artefacts' ids.
    """
    stages = planned_stages(plan)
    cost = plan_cost(plan, stages, gpu, share)
    sweep = len(plan.cells) > 1
    cells = f" in {len(plan.cells)} cells" if sweep else ""
    title = f"{plan.loaded.recipe.name}: {len(stages)} stages{cells}"
    print_stages(console, title, [_stage_line(plan, stage) for stage in stages], has_cells=sweep, with_keys=with_keys)
    table = cost_table(plan, stages, cost)
    for line in [*table, ""] if table else []:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    notes = [*_notes(plan, stages), *(f"{line}." for line in unread_lines(plan))]
    asked = (f"{line}." for line in asked_lines(stages))
    groups = [cost_sentences(cost), asked, unresolved_sentences(plan, cost), disk_lines(plan, stages), notes]
    for lines in map(list, groups):
        _print_prose(console, [*lines, ""] if lines else [])
    hints = ["`--stages` prints the commands of the stages that are not done."]
    if sweep:
        hints.append("`--commands` prints the steps of the sweep, and `--slurm` a script for a cluster.")
    _print_prose(console, hints if any(stage.status != "done" for stage in stages) else hints[1:])


def print_cost(console: Console, plan: Plan, cost: PlanCost) -> None:
    """Print what is to run and what it costs, for the head of a run; nothing if all is done."""
    if cost.waiting:
        _print_prose(console, [count_sentence(plan, cost), *total_sentences(cost)])


def _stage_line(plan: Plan, stage: PlannedStage) -> StageLine:
    launch = stage.node.runtime.get("launch")
    shown = f"{Path(launch['config_file']).stem} x {launch['num_processes']}" if launch else ""
    cell = plan.cell_name(stage.node)
    artefact = UNRESOLVED if stage.node.is_unresolved else stage.node.id
    return StageLine(stage.node.label, cell, artefact, stage.status, stage.reason, shown)


def _notes(plan: Plan, stages: Sequence[PlannedStage]) -> list[str]:
    """Notes on the stages below the table."""
    return [*_templates(stages), *_packed(stages), *_walked(plan, stages)]


def _walked(plan: Plan, stages: Sequence[PlannedStage]) -> list[str]:
    """How many rows each embedding along a walk has embedded and saved, or that it will embed no others."""
    lines = []
    for node in (stage.node for stage in stages if "walk" in stage.node.identity):
        saved = "" if not plan.store.has(node.id) else saved_rows(plan.store.manifest(node.id)) or "all rows embedded"
        cell = plan.cell_name(node)
        budget = node.identity["walk"]["budget"]
        words = f"{in_words(budget)} rows" if form_of(budget) == ROWS else in_words(budget)
        lines.append(
            f"{node.label}{f' ({cell})' if cell else ''}: in rank order until select keeps {words} (embedding.rows: "
            f"walked){f'; {saved}' if saved else ''}."
        )
    return lines


def _templates(stages: Sequence[PlannedStage]) -> list[str]:
    """Which chat template which stages render rows by."""
    by: dict[str, list[str]] = {}
    for stage in stages:
        if "template" in stage.node.runtime:
            by.setdefault(stage.node.runtime["template"], []).append(stage.node.label)
    return [f"Chat template of {', '.join(dict.fromkeys(labels))}: {words}." for words, labels in by.items()]


def _packed(stages: Sequence[PlannedStage]) -> list[str]:
    """A note on packed trainings on a CPU."""
    packed = [
        stage.node.label
        for stage in stages
        if stage.status != "done" and stage.node.runtime.get("packing") and stage.node.runtime["launch"]["use_cpu"]
    ]
    if not packed:
        return []
    return [
        f"{', '.join(packed)}: packing: is slower on a CPU than batches of similar length, because attention there "
        "computes the whole matrix of a packed row; the losses are the same without it."
    ]


def _print_prose(console: Console, lines: Iterable[str]) -> None:
    """Print lines that a terminal wraps at words; a file gets each on one line."""
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal, highlight=False, markup=False)


def print_results(console: Console, run_dir: Path) -> None:
    """Print the result tables that the report wrote."""
    for table in read_json(run_dir / "report" / "result.json"):
        print_table(console, Table.from_json(table))


def print_comparison(console: Console, run_dirs: Sequence[Path]) -> Path:
    """Print runs side by side, and write the page of them; return its path.

    Raises:
        UserError: a folder is no run, one is named twice, or no run has measured a model.
    """
    from deita_train.report.run_page import comparison_tables, read_runs, write_comparison

    tables, sentences = comparison_tables(read_runs([(run_dir, store_folder(run_dir)) for run_dir in run_dirs]))
    page = write_comparison(run_dirs, tables, sentences)
    for table in tables:
        print_table(console, table)
    _print_prose(console, sentences)
    return page
