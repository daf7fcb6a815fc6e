"""One process of one stage: what runs inside `deita-train stage`, forked or under `accelerate launch`.

Every rank prepares nothing but rank 0, checks that it has the launch it was promised, carries out the stage, and rank 0
publishes after the checks. Nothing heavy is imported before it is needed.
"""

import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from deita_train.errors import Stopped, UserError, machine_fault
from deita_train.plan.launch import count_gpus
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, make_plan, parent_digests
from deita_train.run.child.logs import run_logged
from deita_train.run.child.preparation import prepare, wait_for_preparation
from deita_train.run.child.reusable_artefacts import find_siblings
from deita_train.run.child.tracking import Tracker, tracking
from deita_train.stages.context import Progress, StageContext, StageResult
from deita_train.stages.kinds import stage_module
from deita_train.store.artefacts import Manifest
from deita_train.store.atomic_io import read_json, remove_tree, write_json_atomically
from deita_train.store.locks import PARENT_VARIABLE, die_with_parent, hold, join_workers
from deita_train.training.stopping import STOP_FILE

_RESULT = "result.json"
_ERROR = "error.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "numpy", "deita-train")


def run_stage(recipe_path: Path, sets: Sequence[str], runs_dir: Path, artefact_id: str) -> None:
    """Carry out one stage in this process, as one rank of `WORLD_SIZE`, and publish it."""
    supervised = PARENT_VARIABLE in os.environ
    if supervised or "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    _set_threads()
    plan = make_plan(recipe_path, sets, runs_dir)
    _see_one_gpu()
    node = plan.node(artefact_id)
    rank = int(os.environ.get("RANK", "0"))
    if not supervised and plan.store.has(node.id):
        sys.stdout.write(f"{node.id} is published already.\n")
        return
    if supervised or rank != 0:
        _work(plan, node, rank)
        return
    # Without waiting for the workers' lock: this launch's own other ranks may hold it already.
    with hold(plan.store.lock_path(node.id), None, node.label):
        _work(plan, node, rank)
        if not plan.store.has(node.id):
            _publish_in_a_clean_process(plan, node)
    sys.stdout.write(f"published {plan.store.path(node.id)}\n")


def _work(plan: Plan, node: Node, rank: int) -> None:
    # The tracker is outermost, because its end may take a while.
    with tracking(plan, node, rank) as tracker, _at_work(plan, node, rank) as work_dir:
        _carry_out(plan, node, rank, work_dir, tracker)


@contextmanager
def _at_work(plan: Plan, node: Node, rank: int) -> Iterator[Path]:
    """The work folder of an artefact, its workers' lock held; a failure inside leaves its reason in the folder."""
    work_dir = plan.store.work_path(node.id)
    work_dir.mkdir(parents=True, exist_ok=True)
    working = join_workers(plan.store.workers_lock_path(node.id))
    try:
        yield work_dir
    except BaseException as error:
        fault = machine_fault(error, work_dir)
        _leave_error(work_dir, rank, fault or error)
        if fault is not None:
            raise fault from error
        raise
    finally:
        working.close()


def _carry_out(plan: Plan, node: Node, rank: int, work_dir: Path, tracker: Tracker) -> None:
    started = time.time()
    if rank == 0 and PARENT_VARIABLE not in os.environ:  # a run removes what asked its last attempt to stop
        (work_dir / STOP_FILE).unlink(missing_ok=True)
    context = replace(make_context(plan, node, rank, work_dir), log=tracker.log)
    _check_world_size(context)
    module = stage_module(node.kind)
    if rank == 0:
        for leftover in (context.data_dir, context.model_dir, work_dir / "trace"):
            remove_tree(leftover)
        context = replace(context, siblings=find_siblings(plan.store, node))
        prepare(module, context)
    else:
        wait_for_preparation(context)
    result: StageResult | None = module.run(context)
    _leave_ranks()
    if rank != 0:
        return
    assert result is not None
    from deita_train.stages.checks import check_finite

    check_finite(context.label, result.metrics)
    _leave_result(work_dir, result, context, started)
    if publishes_itself(node):
        publish(plan, node, tracker)


def _leave_ranks() -> None:
    """End the process group, if the stage had one: left to the exit, its threads now and then abort the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def publishes_itself(node: Node) -> bool:
    """Whether the process that carries out a stage may also check and publish it.

    Not when it has a process group or DeepSpeed: there a plain `from_pretrained` would shard the model.
    """
    return "launch" not in node.settings or node.settings["launch"]["distributed_type"] == "NO"


def make_context(plan: Plan, node: Node, rank: int, work_dir: Path) -> StageContext:
    """The stage's view of its node: configuration, published parents, folders, progress."""
    missing = [parent.label for parent in node.parents.values() if not plan.store.has(parent.id)]
    if missing:
        raise UserError(
            f"{node.label} reads {', '.join(missing)}, which is not made yet: run the recipe up to it first."
        )
    return StageContext(
        kind=node.kind,
        label=node.label,
        config=node.config,
        settings=node.settings,
        parents={name: plan.store.path(parent.id) for name, parent in node.parents.items()},
        work_dir=work_dir,
        rank=rank,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        progress=Progress(work_dir / "progress.json" if rank == 0 else None),
    )


def publish(plan: Plan, node: Node, tracker: Tracker) -> None:
    """Check a finished stage against silent success, then publish it and log its metrics.

    Runs in a process without a process group.
    """
    from deita_train.stages.checks import check_artefact, content_digest

    work_dir = plan.store.work_path(node.id)
    left = read_json(work_dir / _RESULT)
    context = make_context(plan, node, 0, work_dir)
    module = stage_module(node.kind)
    if hasattr(module, "finish"):
        left["metrics"] |= module.finish(context)
    check_artefact(context, left)
    manifest = Manifest(
        id=node.id,
        key=node.key,
        kind=node.kind,
        label=node.label,
        config=dict(node.config),
        parents={name: parent.id for name, parent in node.parents.items()},
        parent_digests=parent_digests(plan.store, node),
        rows_in=left["rows_in"],
        rows_out=left["rows_out"],
        drops=left["drops"],
        content_digest=content_digest(work_dir),
        seed=node.config.get("seed"),
        versions=_versions(),
        device=left["device"],
        world_size=left["world_size"],
        distributed_type=str(node.settings.get("launch", {}).get("distributed_type", "NO")),
        threads=left["threads"],
        command=_shown_command(plan, node),
        started=left["started"],
        wall_seconds=left["wall_seconds"],
    )
    plan.store.publish(manifest, left["metrics"])
    counts = {name: left[name] for name in ("rows_in", "rows_out", "drops", "wall_seconds")}
    tracker.summarize({**left["metrics"], **counts})


def publish_by_name(recipe_path: Path, sets: Sequence[str], runs_dir: Path, artefact_id: str) -> None:
    """`deita-train publish`: the last step of a stage that ran on several ranks."""
    if PARENT_VARIABLE in os.environ:
        die_with_parent()
    plan = make_plan(recipe_path, sets, runs_dir)
    node = plan.node(artefact_id)
    with tracking(plan, node, 0) as tracker, _at_work(plan, node, 0):
        publish(plan, node, tracker)


def _publish_in_a_clean_process(plan: Plan, node: Node) -> None:
    """Under ZeRO-3 a plain `from_pretrained` in this process would shard the model and wait for the other ranks."""
    launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_", "GROUP_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(launcher)}
    command = [sys.executable, "-m", "deita_train.cli", "publish", *plan.arguments(), "--stage", node.id]
    answer = subprocess.run(command, env=environment, check=False)
    if answer.returncode != 0:
        raise SystemExit(answer.returncode)  # the lines above say why


def _set_threads() -> None:
    """Fix the threads of this rank: float sums change in their last bits with the number of threads."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks_here)))


def _see_one_gpu() -> None:
    """A process that is the only one works on one GPU: seeing several, trainers spread themselves over all of them.

    After the plan, which counts them, and before CUDA starts.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" and count_gpus() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def _check_world_size(context: StageContext) -> None:
    launch = context.settings.get("launch")
    if launch is not None and context.world_size != launch["num_processes"]:
        raise UserError(
            f"{context.label}: {launch['config_file']} promises {launch['num_processes']} ranks, and "
            f"{context.world_size} started. A MULTI_CPU configuration starts one process: use MULTI_GPU with use_cpu."
        )


def _leave_result(work_dir: Path, result: StageResult, context: StageContext, started: float) -> None:
    threads = int(os.environ["OMP_NUM_THREADS"])
    left = {
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "drops": dict(result.drops),
        "metrics": dict(result.metrics),
        "device": result.device,
        "world_size": context.world_size,
        "threads": threads,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)),
        "wall_seconds": round(time.time() - started, 3),
    }
    write_json_atomically(work_dir / _RESULT, left)


def _leave_error(work_dir: Path, rank: int, error: BaseException) -> None:
    """The first rank that fails leaves the reason where the run finds it."""
    path = work_dir / _ERROR
    if path.exists():
        return
    message = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception_only(error)).strip()
    left = {
        "rank": rank,
        "user_error": isinstance(error, UserError),
        "stopped": isinstance(error, Stopped),
        "message": message,
    }
    # On a full disk not even this can be written; the run finds that out by itself.
    with suppress(OSError):
        write_json_atomically(path, left)


def _shown_command(plan: Plan, node: Node) -> str:
    return shlex.join(["deita-train", "stage", *plan.arguments(), "--stage", node.id])


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except ModuleNotFoundError:  # deepspeed is only there on Linux
            continue
    return versions


def forked_stage(recipe_path: str, sets: list[str], runs_dir: str, artefact_id: str, log: str) -> None:
    """Target of a forked child: output into the log, the stage, exit code 0, 1 or 2."""
    run_logged(Path(log), lambda: run_stage(Path(recipe_path), sets, Path(runs_dir), artefact_id))


def forked_publish(recipe_path: str, sets: list[str], runs_dir: str, artefact_id: str, log: str) -> None:
    """The same for the publishing of a stage that several ranks have finished."""
    run_logged(Path(log), lambda: publish_by_name(Path(recipe_path), sets, Path(runs_dir), artefact_id))
