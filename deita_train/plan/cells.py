"""A plan in parts: the artefacts of a sweep's cell, and the shell lines of its steps and of single stages."""

import shlex

from deita_train.errors import UserError
from deita_train.plan.launch import Launch
from deita_train.plan.node import Node
from deita_train.plan.plan import Cell, Plan, planned_stages
from deita_train.recipe.wording import nearest

# Stands for a cell: what two or more cells need.
SHARED = "shared"
_MOST_NAMED = 20


def cell_nodes(plan: Plan, chosen: str) -> list[Node]:
    """The artefacts of the cell with that label or number, or of `shared`; parents before children.

    Number 0 is the base run.

    Raises:
        UserError: for an unknown cell, and for a recipe without a sweep.
    """
    check_sweep(plan, "--cell")
    if chosen == SHARED:
        return [node for node in plan.nodes if len(plan.owners(node)) > 1]
    cell = next((cell for number, cell in enumerate(plan.cells) if chosen in (cell.label, str(number))), None)
    if cell is None:
        raise _unknown_cell(plan, chosen)
    return [node for node in plan.nodes if cell in plan.owners(node)]


def cell_commands(plan: Plan, until: str | None) -> list[str]:
    """One shell line per step of a sweep: what its cells share, each cell, and the run that writes the report.

    Raises:
        UserError: the recipe has no sweep.
    """
    check_sweep(plan, "--commands")
    steps = [SHARED, *(cell.label for cell in plan.cells)]
    return [f"{run_command(plan, until)} --cell {shlex.quote(step)}" for step in steps] + [run_command(plan, until)]


def run_command(plan: Plan, until: str | None) -> str:
    """The shell line that carries out a plan."""
    return shlex.join(["deita-train", "run", *plan.arguments(), *(["--until", until] if until else [])])


def stage_commands(plan: Plan) -> list[str]:
    """One shell line for each stage that is not done, in the order of the run."""
    return [stage_command(plan, stage.node) for stage in planned_stages(plan) if stage.status != "done"]


def stage_command(plan: Plan, node: Node, *options: str) -> str:
    """The shell line that carries out one stage, with further options."""
    arguments = ["stage", *plan.arguments(), "--stage", node.id, *options]
    launch = Launch.from_dict(node.runtime["launch"]) if "launch" in node.runtime else None
    if launch is None or launch.forked:
        return f"deita-train {shlex.join(arguments)}"
    return launch.printed_command(arguments)


def check_sweep(plan: Plan, option: str) -> None:
    """Raise :class:`UserError` for an option that only a sweep has, where there is none."""
    if len(plan.cells) == 1:
        raise UserError(f"{option}: {plan.loaded.path} has no sweep:, so it has one cell only. Leave {option} out.")


def _unknown_cell(plan: Plan, chosen: str) -> UserError:
    near = nearest(chosen, [SHARED, *(cell.label for cell in plan.cells)])
    hint = f" (did you mean {near!r}?)" if near else ""
    named = [_named(number, cell) for number, cell in enumerate(plan.cells[:_MOST_NAMED])]
    more = f" and {len(plan.cells) - _MOST_NAMED} more" if len(plan.cells) > _MOST_NAMED else ""
    return UserError(
        f"--cell {chosen}: {plan.loaded.path} has no such cell{hint}. Give {SHARED}, or one of these by number or "
        f"label: {'; '.join(named)}{more}."
    )


def _named(number: int, cell: Cell) -> str:
    return f"{number} {cell.label!r}"
