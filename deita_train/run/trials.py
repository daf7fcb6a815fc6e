"""Before the first stage of a run: every training is tried on a tiny copy of its model, and a CPU's bfloat16 timed."""

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from deita_train.errors import UserError
from deita_train.number_text import plural
from deita_train.plan.cost.costs import PlanCost
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.run.child.logs import user_error_in
from deita_train.run.children import Children
from deita_train.run.display import Display
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.atomic_io import read_json, write_json_atomically
from deita_train.store.keys import content_key
from deita_train.training.sizes import trained_dtype

# In a run's folder: what was tried and is right, what the last trial found, and the log of its process.
TRIED, _FOUND, _LOG = "tried.json", "trial.json", "trial.log"
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


def try_trainings(
    plan: Plan, missing: Collection[str], children: Children, display: Display, cost: PlanCost | None = None
) -> str:
    """Try the trainings that are missing and were not found right before, in a child; returns what to show.

    With `cost`, the work that is to be done in bfloat16 on this machine's CPU is tried too.

    Raises:
        UserError: what would stop a training, all of it at once, or work that this CPU does much faster in float32.
    """
    heavy = [] if cost is None else work_in_bfloat16(plan.nodes, missing, cost)
    keys = {_key(node): node for node in trainings(plan.nodes, missing)}
    right = _remembered(plan)
    left = {key: node for key, node in keys.items() if key not in right}
    if not left and not heavy:
        return ""
    found = _found(plan, list(left.values()), heavy, children, display)
    if found is None:
        display.warn(f"the trainings could not be tried beforehand: {plan.run_dir / _LOG} says why")
        return ""
    for note in found["notes"]:
        display.note(note)
    if found["problems"]:
        raise UserError("\n".join(located(plan, found["problems"])))
    write_json_atomically(plan.run_dir / TRIED, sorted({*right, *left}))
    return f"{plural(len(left), 'training')} tried" if left else ""


def trainings(nodes: Sequence[Node], missing: Collection[str]) -> list[Node]:
    """The stages that train and are to be made."""
    return [node for node in nodes if STAGE_KINDS[node.kind].trains and node.id in missing]


def located(plan: Plan, problems: Sequence[str]) -> list[str]:
    """Problems with the recipe's file."""
    return [f"{plan.loaded.path}: {problem}" for problem in problems]


def work_in_bfloat16(nodes: Sequence[Node], missing: Collection[str], cost: PlanCost) -> list[tuple[str, float, bool]]:
    """The stages to be made that compute in bfloat16 on this CPU: label, a rank's operations, whether it trains.

    Of what is known at most, nothing is said here: the stage itself measures its rows.
    """
    found = []
    for node in nodes:
        launch, planned = node.runtime.get("launch"), cost.stages[node.key]
        if node.id not in missing or launch is None or not launch["use_cpu"] or planned.at_most:
            continue
        if planned.operations is not None and _in_bfloat16(node):
            operations = planned.operations / launch["num_processes"]
            found.append((node.label, operations, STAGE_KINDS[node.kind].trains))
    return found


def _in_bfloat16(node: Node) -> bool:
    if not STAGE_KINDS[node.kind].trains:
        return bool(node.identity.get("dtype") == "bfloat16")
    return node.identity["mixed_precision"] == "bf16" or trained_dtype(node.identity["trainer"]) == "bfloat16"


def _found(
    plan: Plan,
    nodes: list[Node],
    in_bfloat16: Sequence[tuple[str, float, bool]],
    children: Children,
    display: Display,
) -> Mapping[str, Any] | None:
    """What a child found; None if it came to no end through no fault of the recipe's."""
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    result, log = plan.run_dir / _FOUND, plan.run_dir / _LOG
    for leftover in (result, log):
        leftover.unlink(missing_ok=True)
    code = children.trials(nodes, in_bfloat16, result, log, display.tick)
    mistake = user_error_in(log) if code == UserError.exit_code else None
    if mistake is not None:
        raise UserError(mistake)
    if not result.exists():
        return None
    found: Mapping[str, Any] = read_json(result)
    result.unlink()
    log.unlink(missing_ok=True)
    return found


def _remembered(plan: Plan) -> frozenset[str]:
    file = plan.run_dir / TRIED
    return frozenset(read_json(file) if file.exists() else ())


def _key(node: Node) -> str:
    """What decides how a trial ends: the stage, how it runs, and the libraries."""
    decisive = {
        "stage": node.key,
        "runtime": {name: node.runtime[name] for name in ("trainer", "launch", "packing")},
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }
    return content_key("trial", 1, decisive, {})


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
