"""The costs of a whole plan: each stage's, their sum, and the points that a reader asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deita_train.cost.gpus import Gpu, gpu_of_device, named_gpu
from deita_train.plan.cost.break_even import BreakEven, break_even
from deita_train.plan.cost.rows import PlannedRows
from deita_train.plan.cost.stages import StageCost, parts_of, stage_cost, wall_hours
from deita_train.plan.disk import plan_disk
from deita_train.plan.launch import count_gpus, gpu_names
from deita_train.plan.plan import Plan, PlannedStage, planned_stages


@dataclass(frozen=True)
class PlanCost:
    """What a plan costs.

    Attributes:
        gpu: the kind of GPU that hours and memory are for; None if none was named.
        stages: each stage's cost by its key.
        labels: its label by its key.
        waiting: the keys of those that are to run.
        point: where selecting first pays, of the base run; None where that cannot be said.
    """

    gpu: Gpu | None
    stages: Mapping[str, StageCost]
    labels: Mapping[str, str]
    waiting: frozenset[str]
    point: BreakEven | None

    @property
    def to_run(self) -> list[StageCost]:
        """Of the stages that are to run."""
        return [cost for key, cost in self.stages.items() if key in self.waiting]

    @property
    def gpu_hours(self) -> float | None:
        """Of all stages to run whose hours are known; None if none's are."""
        return _sum([cost.gpu_hours for cost in self.to_run])

    @property
    def wall_hours(self) -> float | None:
        """The same one stage after another, each on its GPUs."""
        return _sum([wall_hours(cost) for cost in self.to_run])

    @property
    def operations(self) -> float | None:
        """Of all stages to run whose operations are known."""
        return _sum([cost.operations for cost in self.to_run])

    @property
    def tokens(self) -> float | None:
        """Of all stages to run whose tokens are known."""
        return _sum([cost.tokens for cost in self.to_run])


def chosen_gpu(name: str | None, gpus: int | None) -> tuple[Gpu | None, int | None]:
    """The kind of GPU that a plan is for, and how many each machine has.

    Args:
        name: as the option states it; None for this machine's kind, where all of its GPUs are of one that is known.
        gpus: as the option states it; None counts this machine's.

    Returns:
        The kind, None if unknown; the number, None for this machine's. A kind alone, on a machine without GPUs, is one.

    Raises:
        UserError: there is no such kind.
    """
    if name is not None:
        return named_gpu(name), 1 if gpus is None and not count_gpus() else gpus
    here = set(gpu_names()) if gpus is None else set()
    return gpu_of_device(here.pop()) if len(here) == 1 else None, gpus


def plan_cost(plan: Plan, stages: Sequence[PlannedStage], gpu: Gpu | None, share: float | None = None) -> PlanCost:
    """What the stages of a plan cost.

    Args:
        plan: the plan.
        stages: its stages with their status.
        gpu: the kind of GPU; None if it is not known.
        share: of its peak, in place of what this project measured.
    """
    rows = PlannedRows(plan.store)
    costs = {stage.node.key: stage_cost(plan.store, rows, stage.node, gpu, share) for stage in stages}
    waiting = frozenset(stage.node.key for stage in stages if stage.status != "done")
    labels = {stage.node.key: stage.node.label for stage in stages}
    return PlanCost(gpu, costs, labels, waiting, break_even(plan.store, rows, plan.cells[0].nodes, costs))


def run_cost(plan: Plan) -> PlanCost:
    """What a plan costs on this machine's GPUs, as a run prints and keeps it."""
    return plan_cost(plan, planned_stages(plan), chosen_gpu(None, None)[0])


def kept_costs(plan: Plan, cost: PlanCost) -> dict[str, dict[str, Any]]:
    """What a run keeps of its costs: of each stage that computes, by its artefact."""
    kept = ("tokens", "at_most", "sampled", "operations", "gpu_hours", "memory")
    costs = {node.id: cost.stages[node.key] for node in plan.nodes}
    return {
        artefact: {name: getattr(of, name) for name in kept} for artefact, of in costs.items() if of.tokens is not None
    }


def plan_as_json(plan: Plan, stages: Sequence[PlannedStage], cost: PlanCost) -> dict[str, Any]:
    """A plan with its costs as plain data, for other programs."""
    disk = plan_disk(plan, stages)
    return {
        "recipe": str(plan.loaded.path),
        "name": plan.loaded.recipe.name,
        "cells": [cell.label for cell in plan.cells],
        "unresolved": list(plan.unresolved),
        "gpu": None if cost.gpu is None else {**vars(cost.gpu), "words": sorted(cost.gpu.words)},
        "stages": [_stage_as_json(plan, stage, cost.stages[stage.node.key]) for stage in stages],
        "total": {
            "gpu_hours": cost.gpu_hours,
            "wall_hours": cost.wall_hours,
            "operations": cost.operations,
            "tokens": cost.tokens,
        },
        "disk": None if disk is None else {"at_most": disk.at_most, "free": disk.free, "unknown": dict(disk.unknown)},
        "selecting_first": None if cost.point is None else _point_as_json(cost.point),
    }


def _stage_as_json(plan: Plan, stage: PlannedStage, cost: StageCost) -> dict[str, Any]:
    node = stage.node
    return {
        "label": node.label,
        "kind": node.kind,
        "cells": [cell.label for cell in plan.owners(node)],
        "artefact": None if node.is_unresolved else node.id,
        "key": None if node.is_unresolved else node.key,
        "status": stage.status,
        "reason": stage.reason,
        "launch": node.runtime.get("launch"),
        "reads": [parent.label for parent in node.parents.values()],
        "cost": parts_of(cost),
    }


def _point_as_json(point: BreakEven) -> dict[str, Any]:
    return {
        **vars(point),
        "pays": point.pays,
        "break_even_epochs": point.break_even_epochs,
        "break_even_parameters": point.break_even_parameters,
    }


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
