"""The last step of a stage: check what it left against silent success, write the manifest, publish.

It runs in a process without a process group: under ZeRO-3 a plain `from_pretrained` would shard the model and wait for
the other ranks.
"""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, make_plan, parent_digests
from deita_train.run.child.tracking import Tracker, tracking
from deita_train.run.child.work_folder import stage_context, work_folder
from deita_train.stages.kinds import stage_module
from deita_train.store.artefacts import Manifest
from deita_train.store.attempt import AttemptResult
from deita_train.store.locks import PARENT_VARIABLE, die_with_parent
from deita_train.store.retry_log import read_retries

_PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "numpy", "lm-eval", "deita-train",
)  # fmt: skip
# Variables by which a process takes itself for a rank of a launch.
_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_", "GROUP_")


def publishes_itself(node: Node) -> bool:
    """Whether the process that carries out a stage may publish it: it has no process group and no DeepSpeed."""
    return "launch" not in node.runtime or node.runtime["launch"]["distributed_type"] == "NO"


def publish_stage(recipe_path: Path, sets: Sequence[str], runs_dir: Path, artefact_id: str) -> None:
    """`deita-train publish`: publish a stage that several ranks have finished."""
    if PARENT_VARIABLE in os.environ:
        die_with_parent()
    plan = make_plan(recipe_path, sets, runs_dir)
    node = plan.node(artefact_id)
    with tracking(plan, node, 0) as tracker, work_folder(plan, node, 0):
        publish(plan, node, tracker)


def publish_in_clean_process(plan: Plan, node: Node) -> None:
    """Publish from a rank of a launch that was started by hand."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHERS)}
    command = [sys.executable, "-m", "deita_train.cli", "publish", *plan.arguments(), "--stage", node.id]
    answer = subprocess.run(command, env=environment, check=False)
    if answer.returncode != 0:
        raise SystemExit(answer.returncode)  # its output says why


def publish(plan: Plan, node: Node, tracker: Tracker) -> None:
    """Check a finished stage, publish it and log its metrics."""
    from deita_train.stages.checks import check_artefact, content_digest

    work_dir = plan.store.work_path(node.id)
    result = AttemptResult.read(work_dir)
    context = stage_context(plan, node, 0, work_dir)
    module = stage_module(node.kind)
    if hasattr(module, "finish"):
        result = replace(result, metrics={**result.metrics, **module.finish(context)})
    retries = len(read_retries(work_dir))
    if retries:
        result = replace(result, metrics={**result.metrics, "retries": retries})
    check_artefact(context, asdict(result))
    plan.store.publish(_manifest(plan, node, result, content_digest(work_dir)), result.metrics)
    counts = {name: getattr(result, name) for name in ("rows_in", "rows_out", "drops", "wall_seconds")}
    tracker.summarize({**result.metrics, **counts})


def _manifest(plan: Plan, node: Node, result: AttemptResult, content_digest: str) -> Manifest:
    return Manifest(
        id=node.id,
        key=node.key,
        kind=node.kind,
        label=node.label,
        config=dict(node.identity),
        parents={name: parent.id for name, parent in node.decisive.items()},
        parent_digests=parent_digests(plan.store, node),
        counts_as={name: key for name, key in node.parent_keys.items() if key != node.parents[name].key},
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        drops=result.drops,
        content_digest=content_digest,
        seed=node.identity.get("seed"),
        versions=_versions(),
        device=result.device,
        world_size=result.world_size,
        distributed_type=str(node.runtime.get("launch", {}).get("distributed_type", "NO")),
        threads=result.threads,
        command=shlex.join(["deita-train", "stage", *plan.arguments(), "--stage", node.id]),
        started=result.started,
        wall_seconds=result.wall_seconds,
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # deepspeed is only there on Linux, lm-eval where it is wanted
            continue
    return versions
