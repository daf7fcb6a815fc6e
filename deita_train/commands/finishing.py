"""What a single command does with its request: makes the stage, then writes or prints what it made."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import typer
from rich.console import Console

from deita_train.commands.against import MODEL, against, print_models
from deita_train.commands.comparison_files import ComparisonFiles
from deita_train.commands.exports import export_model, export_selection, export_table, print_facts
from deita_train.commands.select_options import check_select
from deita_train.commands.single import Single, carry_out
from deita_train.data.outputs import Output
from deita_train.errors import UserError
from deita_train.plan.plan import Plan

# The stage with the answers of the model that `evaluate` names.
_ANSWERS = "generate.base"


def _write_table(single: Single, values: Mapping[str, Any]) -> None:
    assert single.label is not None
    target = Output.for_rows(values["output"], values["overwrite"])
    plan, console = _carry_out(single, values, (single.label, target))
    print_facts(plan, console)
    export_table(plan, single.label, target, console)


def _write_selection(single: Single, values: Mapping[str, Any]) -> None:
    """With `--compare` the comparison lies beside the rows."""
    target = Output.for_rows(values["output"], values["overwrite"])
    files = None if values["compare"] is None else ComparisonFiles.beside(target)
    given = frozenset(single.names[field] for field in single.fields if field in single.names)
    single = replace(single, label="select" if files is None else "compare", check=lambda of: check_select(of, given))
    beside = [] if files is None else [("compare", file) for file in files.outputs]
    plan, console = _carry_out(single, values, ("select", target), *beside)
    export_selection(plan, target, values["all"], console)
    if files is not None:
        files.write(plan, console)


def _copy_model(single: Single, values: Mapping[str, Any]) -> None:
    assert single.label is not None
    target = None if values["output"] is None else Output.for_model(values["output"], values["overwrite"])
    plan, console = _carry_out(single, values, *([] if target is None else [(single.label, target)]))
    print_facts(plan, console)
    export_model(plan, single.label, target, console)


def _print_measures(single: Single, values: Mapping[str, Any]) -> None:
    """With `--against` both models' measures, and how far apart they are."""
    if values["against"] is None:
        _measure(single, values)
        return
    other = against(single, values["against"])
    plan, console = _measure(single, values)
    other_plan, _ = _carry_out(other, values)
    print_facts(other_plan, console)
    names = other.fields[MODEL], single.fields[MODEL]
    print_models(console, dict(zip(names, (other_plan, plan), strict=True)))


def _measure(single: Single, values: Mapping[str, Any]) -> tuple[Plan, Console]:
    target = None if values["output"] is None else Output.for_rows(values["output"], values["overwrite"])
    if target is not None and values["questions"] is None:
        raise UserError(
            f"--output {target.path}: is where the answers to --questions are written; name a file of questions, or "
            "leave --output out."
        )
    plan, console = _carry_out(single, values, *([] if target is None else [(_ANSWERS, target)]))
    print_facts(plan, console)
    if target is not None:
        export_table(plan, _ANSWERS, target, console)
    return plan, console


def _carry_out(single: Single, values: Mapping[str, Any], *outputs: tuple[str, Output]) -> tuple[Plan, Console]:
    console = Console()
    try:
        return carry_out(single, values["runs"], outputs, console), console
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to continue")
        raise typer.Exit(130) from None


# By what a command gives.
FINISH = {"table": _write_table, "selection": _write_selection, "model": _copy_model, "measures": _print_measures}
