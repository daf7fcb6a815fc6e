"""One process of one stage: what runs inside `deita-train stage`, forked or under `accelerate launch`.

Rank 0 prepares while the others wait; then every rank runs the stage. A process without a process group publishes it.
Nothing heavy is imported before it is needed.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deita_train.errors import UserError
from deita_train.plan.launch import Launch, count_gpus
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, make_plan
from deita_train.run.child.environment import clear_environment, told_as_cleared
from deita_train.run.child.preparation import prepare, wait_for_preparation
from deita_train.run.child.publishing import publish, publish_in_clean_process, publishes_itself
from deita_train.run.child.reusable_artefacts import find_reusable
from deita_train.run.child.tracking import Tracker, tracking
from deita_train.run.child.work_folder import stage_context, work_folder
from deita_train.run.linking import link_stage
from deita_train.run.recording import record_stage
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.kinds import stage_module
from deita_train.store.atomic_io import remove_tree
from deita_train.store.attempt import AttemptResult
from deita_train.store.locks import PARENT_VARIABLE, die_with_parent, hold
from deita_train.training.stopping import STOP_FILE


def run_stage(
    recipe_path: Path, sets: Sequence[str], runs_dir: Path, stage: str, planned_gpus: int | None = None
) -> None:
    """Carry out one stage in this process, as one rank of `WORLD_SIZE`, and publish it.

    Args:
        recipe_path: the recipe.
        sets: `--set` overrides.
        runs_dir: the folder of all runs.
        stage: the artefact's id, or the stage's label.
        planned_gpus: those of each machine that the recipe is planned for; None for this machine's.
    """
    supervised = PARENT_VARIABLE in os.environ
    if supervised or "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    set_threads()
    plan = make_plan(recipe_path, sets, runs_dir, planned_gpus=planned_gpus)
    see_one_gpu()
    node = plan.node(stage)
    if not supervised:  # a run has done it before it started its children
        sys.stdout.write(told_as_cleared(clear_environment(os.environ, launched=_is_launched(node))))
    rank = int(os.environ.get("RANK", "0"))
    if not supervised and plan.store.has(node.id):
        sys.stdout.write(f"{node.id} is published already.\n")
        return
    if supervised or rank != 0:
        _run_rank(plan, node, rank)
        return
    # Without waiting for the workers' lock: this launch's own other ranks may hold it already.
    with hold(plan.store.lock_path(node.id), None, node.label):
        record_stage(plan, node)
        _run_rank(plan, node, rank)
        if not plan.store.has(node.id):
            publish_in_clean_process(plan, node)
    link_stage(plan, node)
    sys.stdout.write(f"published {plan.store.path(node.id)}\n")


def _is_launched(node: Node) -> bool:
    launch = node.runtime.get("launch")
    return launch is not None and not Launch.from_dict(launch).forked


def set_threads() -> None:
    """Fix the threads of this rank: float sums change in their last bits with the number of threads."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks_here)))


def see_one_gpu() -> None:
    """Hide all GPUs but one from a process that is the only one: trainers would spread themselves over all of them.

    After the plan, which counts them, and before CUDA starts.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" and count_gpus() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def _run_rank(plan: Plan, node: Node, rank: int) -> None:
    # The tracker is outermost, because its end may take a while.
    with tracking(plan, node, rank) as tracker, work_folder(plan, node, rank) as work_dir:
        started = time.time()
        context = replace(stage_context(plan, node, rank, work_dir), log=tracker.log)
        _check_world_size(context)
        result = _carry_out(plan, node, context)
        _leave_process_group()
        if rank == 0:
            assert result is not None, f"{node.label} gave no result on rank 0"
            finish_stage(plan, node, context, result, started, tracker)


def _check_world_size(context: StageContext) -> None:
    launch = context.runtime.get("launch")
    if launch is not None and context.world_size != launch["num_processes"]:
        raise UserError(
            f"{context.label}: {launch['config_file']} promises {launch['num_processes']} ranks, and "
            f"{context.world_size} started. A MULTI_CPU configuration starts one process: use MULTI_GPU with use_cpu."
        )


def _carry_out(plan: Plan, node: Node, context: StageContext) -> StageResult | None:
    """Prepare on rank 0, run on every rank; other ranks have no result."""
    module, seconds, started = stage_module(node.kind), 0.0, time.monotonic()
    if context.rank == 0:
        if PARENT_VARIABLE not in os.environ:  # a run removes it itself
            (context.work_dir / STOP_FILE).unlink(missing_ok=True)
        for leftover in (context.data_dir, context.model_dir, context.files_dir, context.work_dir / "trace"):
            remove_tree(leftover)
        context = replace(context, reusable=find_reusable(plan.store, node))
        seconds = prepare(module, context)
    else:
        wait_for_preparation(context)
    result: StageResult | None = module.run(context)
    if result is None or not hasattr(module, "prepare"):
        return result
    whole = time.monotonic() - started
    sys.stdout.write(f"{context.label}: preparation took {seconds:,.1f} s, {seconds / whole:.0%} of the stage\n")
    return replace(result, metrics={**result.metrics, "preparation_seconds": round(seconds, 3)})


def _leave_process_group() -> None:
    """End the process group, if the stage had one: left to the exit, its threads now and then abort the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def finish_stage(
    plan: Plan, node: Node, context: StageContext, result: StageResult, started: float, tracker: Tracker
) -> None:
    """Leave the result for the publishing, and publish it where this process may."""
    from deita_train.stages.checks import check_finite

    check_finite(context.label, result.metrics)
    AttemptResult(
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        drops=dict(result.drops),
        metrics=dict(result.metrics),
        device=result.device,
        world_size=context.world_size,
        threads=int(os.environ["OMP_NUM_THREADS"]),
        started=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)),
        wall_seconds=round(time.time() - started, 3),
    ).write(context.work_dir)
    if publishes_itself(node):
        publish(plan, node, tracker)
