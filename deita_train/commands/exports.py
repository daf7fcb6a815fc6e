"""Writes the result of a single command, a table or a model, to its output, and prints what is worth knowing of it."""

import shutil
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from deita_train.data.outputs import Output
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.selection.trace.fewer_than_budget import fewer_than_budget


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
        rows = traced_pool(_table(plan, select.parents["pool"], "data"), _table(plan, select, "trace"))
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


def print_facts(plan: Plan, console: Console) -> None:
    """Print a line for each stage that left out or cut rows, or measured something."""
    for label, node in plan.cells[0].nodes.items():
        describe = _FACTS.get(node.kind)
        if describe is not None:
            say(console, f"{label}: {describe(plan.store.metrics(node.id))}")


def _score_facts(metrics: Mapping[str, Any]) -> str:
    nulls = ", ".join(f"{reason} {number:,}" for reason, number in metrics["nulls"].items() if number)
    without = f"{sum(metrics['nulls'].values()):,} without a score{f' ({nulls})' if nulls else ''}"
    scored = f"{metrics['scored']:,} turns scored, {without}"
    cut = f"{metrics['shortened']:,} rows shortened to max_length{_found_again(metrics, 'turns')}"
    suspected = (
        f"; only {metrics['digit_mass_mean']:.1%} of the probability is on the digits: this looks like a wrong model"
        if metrics["wrong_model_suspected"]
        else ""
    )
    return f"{scored}; {cut}{suspected}"


def _embed_facts(metrics: Mapping[str, Any]) -> str:
    return (
        f"{metrics['dimensions']:,} dimensions; {metrics['truncated']:,} of {metrics['rows']:,} rows cut at max_length"
        f"{_found_again(metrics, 'rows')}"
    )


def _found_again(metrics: Mapping[str, Any], unit: str) -> str:
    return (
        f"; {metrics['rows_reused']:,} {unit} were computed before, in another pool" if metrics["rows_reused"] else ""
    )


def _scorer_facts(metrics: Mapping[str, Any]) -> str:
    heldout = metrics["heldout"]
    if heldout is None:
        return "no held-out rows to measure it on (--heldout)"
    correlation, error = heldout["rank_correlation"], heldout["mean_absolute_error"]
    measured = f"{heldout['rows']:,} held-out rows: rank correlation {correlation:.3f}, mean absolute error {error:.3f}"
    return f"{measured}, bias {heldout['bias']:+.3f}, calibration slope {heldout['calibration_slope']:.3f}"


def _heldout_facts(metrics: Mapping[str, Any]) -> str:
    heldout = metrics["heldout"]
    return (
        f"loss per token {heldout['loss_per_token']:.4f}, perplexity {heldout['perplexity']:.3f} over "
        f"{heldout['tokens']:,} tokens of the assistant in {heldout['rows']:,} rows"
    )


def _pair_facts(metrics: Mapping[str, Any]) -> str:
    pairs = metrics["pairs"]
    return f"the chosen answer is the likelier one in {pairs['accuracy']:.1%} of {pairs['rows']:,} pairs"


def _perplexity_facts(metrics: Mapping[str, Any]) -> str:
    nulls = ", ".join(f"{reason} {number:,}" for reason, number in metrics["nulls"].items())
    return (
        f"{metrics['measured']:,} of {metrics['rows']:,} rows measured{f' ({nulls})' if nulls else ''}; mean "
        f"perplexity {metrics['mean_perplexity']:.3f}, mean IFD {metrics['mean_ifd']:.3f}"
    )


_FACTS = {
    "score": _score_facts,
    "embed": _embed_facts,
    "sentence_embed": _embed_facts,
    "perplexity": _perplexity_facts,
    "train_scorer": _scorer_facts,
    "evaluate": _heldout_facts,
    "log_probs": _pair_facts,
}


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
