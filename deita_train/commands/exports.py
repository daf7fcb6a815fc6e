"""Writes the result of a single command, or of a run for the Hub, to its output, and prints what is worth knowing."""

import shutil
import sys
from typing import Any

from rich.console import Console

from deita_train.commands.uploads import Upload
from deita_train.data.outputs import Output
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.selection.trace.fewer_than_budget import fewer_than_budget
from deita_train.stages.kinds import STAGE_KINDS


def export_table(plan: Plan, label: str, output: Output, console: Console) -> None:
    """Write the table of a stage, without the hashes by which its rows are reused."""
    rows = _table(plan, plan.cells[0].nodes[label], "data")
    hashes = [name for name in rows.column_names if name in ("input_hash", "input_hashes")]
    _write(rows.remove_columns(hashes), output, console)


def export_selection(plan: Plan, output: Output, all_rows: bool, console: Console) -> None:
    """Write the kept rows in rank order, or all rows in the pool's order with what became of each."""
    from deita_train.selection.trace.traced_pool import traced_pool

    select = plan.cells[0].nodes["select"]
    if all_rows:
        removed = select.parents.get("contamination")
        rows = traced_pool(
            _table(plan, select.parents["pool"], "data"),
            _table(plan, select, "trace"),
            None if removed is None else _table(plan, removed, "data"),
        )
    else:
        rows = _table(plan, select, "data")
    _write(rows, output, console)
    warning = fewer_than_budget(plan.store.metrics(select.id), "--threshold")
    if warning:
        sys.stderr.write(f"warning: {warning}\n")


def export_model(plan: Plan, label: str, output: Output | None, console: Console) -> None:
    """Copy the model of a stage; without an output, print its folder."""
    model = plan.store.path(plan.cells[0].nodes[label].id) / "model"
    if output is None:
        say(console, f"model: {model}")
        return
    with output.writing() as path:
        shutil.copytree(model, path)
    say(console, f"{output.path}: a copy of {model}")


def export_upload(upload: Upload, output: Output, console: Console) -> None:
    """Write the folder that `deita-train push` uploads."""
    with output.writing() as folder:
        upload.write(folder)
    say(console, f"{output.path}: {upload.artefact} and its card")


def print_facts(plan: Plan, console: Console) -> None:
    """Print a line for each stage that left out or cut rows, or measured something."""
    for label, node in plan.cells[0].nodes.items():
        describe = STAGE_KINDS[node.kind].describe
        if describe is not None:
            say(console, f"{_named(plan, label)}: {describe(plan.store.metrics(node.id))}")


def _named(plan: Plan, label: str) -> str:
    """A stage's name: its label, but the model for the evaluation of a model that the command names."""
    evaluate = plan.loaded.recipe.evaluate
    is_of_model = label in ("evaluate.base", "evaluate_pairs.base", "generate.base")
    return evaluate.model if is_of_model and evaluate is not None and evaluate.model is not None else label


def _table(plan: Plan, node: Node, name: str) -> Any:
    from datasets import load_from_disk

    return load_from_disk(str(plan.store.path(node.id) / name))


def _write(rows: Any, output: Output, console: Console) -> None:
    from deita_train.data.writing import write_rows

    write_rows(rows, output)
    say(console, f"{output.path}: {len(rows):,} rows")


def say(console: Console, text: str) -> None:
    """Print one line, however long, without markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
