"""One part of a stage in one process: what runs inside `deita-train stage --part`.

Any number of parts may run at once, on machines that share the runs folder. The first one prepares the stage while the
others wait. The last one joins the results, and publishes the stage.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deita_train.errors import UserError, is_passing
from deita_train.plan.division import refuse_undivided
from deita_train.plan.launch import count_gpus
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, is_current, make_plan
from deita_train.run import retrying
from deita_train.run.child.environment import clear_environment, told_as_cleared
from deita_train.run.child.preparation import is_prepared, prepare
from deita_train.run.child.reusable_artefacts import find_reusable
from deita_train.run.child.stage_process import finish_stage, see_one_gpu, set_threads
from deita_train.run.child.tracking import tracking
from deita_train.run.child.work_folder import leaving_error, stage_context
from deita_train.run.recording import record_stage
from deita_train.stages.context import Part, Progress, StageContext
from deita_train.stages.kinds import stage_module
from deita_train.store.atomic_io import look_anew, remove_tree
from deita_train.store.attempt import PROGRESS, clear_attempt
from deita_train.store.locks import BeingMade, hold
from deita_train.store.part_locks import ArtefactLock, hold_part, preparation_lock
from deita_train.store.parts import PartName, PartRecord, part_records, read_division, write_division
from deita_train.store.retry_log import note_retry

if TYPE_CHECKING:
    from deita_train.inference.speed import Speed

PREPARE = "prepare"
_MOST_NAMED = 10
_POLL_SECONDS = 0.5


def run_part(recipe_path: Path, sets: Sequence[str], runs_dir: Path, stage: str, part: str, gpus: int | None) -> None:
    """Prepare a stage in parts, or do one of them.

    Args:
        recipe_path: the recipe.
        sets: `--set` overrides.
        runs_dir: the folder of all runs.
        stage: the stage's label, or the artefact's id.
        part: such as `3/64`, or `prepare`.
        gpus: those of each machine that the recipe is planned for; None for this machine's.

    Raises:
        UserError: the stage is not made in parts, or a run is making it.
    """
    name = None if part == PREPARE else PartName.read(part)
    _say(told_as_cleared(clear_environment(os.environ)))
    set_threads()
    plan = make_plan(recipe_path, sets, runs_dir, planned_gpus=gpus)
    node = plan.node(stage)
    refuse_undivided(node)
    record_stage(plan, node)
    see_one_gpu()
    node = _of_one_process(node)
    if name is None:
        _again_if_it_passes(plan, node, "", lambda: _prepare_alone(plan, node))
        return
    with hold_part(plan.store, node.id, name, node.label, _waiting(f"{node.label}: part {name} is being done")):
        _again_if_it_passes(plan, node, str(name), lambda: _do(plan, node, name))


def _of_one_process(node: Node) -> Node:
    """The same stage in a process without others, whatever its launch."""
    launch = node.runtime["launch"]
    if not launch["use_cpu"] and count_gpus() == 0:
        raise UserError(
            f"{node.label} is planned for GPUs, and this machine has none. Start its parts on a machine that has some."
        )
    alone = {**launch, "num_processes": 1, "num_machines": 1, "distributed_type": "NO"}
    return replace(node, runtime={**node.runtime, "launch": alone})


def _again_if_it_passes(plan: Plan, node: Node, part: str, work: Callable[[], None]) -> None:
    """Do the work, once more after each wait if what failed may pass."""
    for seconds in retrying.WAITS:
        try:
            return work()
        except Exception as error:
            if not is_passing(error):
                raise
            note_retry(plan.store.work_path(node.id), str(error), seconds, part)
            _say(f"{node.label}: {error}\ntried again in {seconds:.0f} s\n")
        time.sleep(seconds)
    return work()


def _prepare_alone(plan: Plan, node: Node) -> None:
    """Prepare the stage, for parts that are started later."""
    with closing(ArtefactLock(plan.store, node.id, node.label)) as lock:
        ready = _prepared(plan, node, lock, None)
        _say(f"{node.id} is {'prepared' if ready else 'published already'}\n")


def _do(plan: Plan, node: Node, part: PartName) -> None:
    """Compute a part; join all of them if it is the last one."""
    started = time.time()
    with closing(ArtefactLock(plan.store, node.id, node.label)) as lock:
        if not _prepared(plan, node, lock, part.of):
            _say(f"{node.id} is published already\n")
            return
        folder = part.folder(plan.store.work_path(node.id))
        folder.mkdir(parents=True, exist_ok=True)
        clear_attempt(folder)
        with leaving_error(folder, 0):
            _compute(plan, node, part, lock, started)


def _compute(plan: Plan, node: Node, part: PartName, lock: ArtefactLock, started: float) -> None:
    work_dir = plan.store.work_path(node.id)
    joined: list[PartRecord] = []

    def join(speed: "Speed") -> "list[Speed] | None":
        PartRecord(asdict(speed), started).write(part.folder(work_dir))
        joined.extend(_all_parts(node, part, lock, work_dir))
        return [type(speed)(**record.speed) for record in joined] or None

    context = replace(
        stage_context(plan, node, 0, work_dir),
        world_size=1,
        progress=Progress(part.folder(work_dir) / PROGRESS),
        part=Part(part.number, part.of, join),
    )
    result = stage_module(node.kind).run(context)
    if result is None:
        return
    # The tracker is outermost, because its end may take a while.
    with tracking(plan, node, 0) as tracker:
        finish_stage(plan, node, context, result, min(record.started for record in joined), tracker)
    _say(f"published {plan.store.path(node.id)}\n")


def _prepared(plan: Plan, node: Node, lock: ArtefactLock, of: int | None) -> bool:
    """Share the lock of the stage once it is prepared for `of` parts; False if it is published.

    For a preparation alone `of` is None, and nothing is held.

    Raises:
        BeingMade: a run is making it, or parts that do not fit to this one.
    """
    store, what = plan.store, f"{node.label}: its preparation"
    with hold(preparation_lock(store, node.id), None, what, _waiting(f"{what} is done")):
        while True:
            if lock.take_alone():
                if is_current(store, node) or store.finish_publishing(node.id):
                    return False
                _prepare(plan, node, of)
                if of is None or lock.share():
                    return True
            elif lock.share():
                _check_fits(plan, node, of)
                return True
            time.sleep(_POLL_SECONDS)  # the last part is joining all of them


def _check_fits(plan: Plan, node: Node, of: int | None) -> None:
    """Raise :class:`BeingMade` if the parts at work are of another division, or prepared with other settings."""
    division = read_division(plan.store.work_path(node.id))
    if of is not None and division != of:
        raise BeingMade(
            f"{node.label}: parts of another division ({division} parts) are at work. Give --part K/{division}, or "
            "wait for them and run again."
        )
    if not is_prepared(_context(plan, node)):
        raise BeingMade(
            f"{node.label}: parts with other settings (max_batch_tokens, reuse_rows) are at work. Give the same "
            "settings, or wait for them and run again."
        )


def _prepare(plan: Plan, node: Node, of: int | None) -> None:
    """Prepare the stage unless it is; nobody else works on it."""
    work_dir = plan.store.work_path(node.id)
    if plan.store.has(node.id):
        remove_tree(work_dir)  # an earlier attempt was made from other content
    work_dir.mkdir(parents=True, exist_ok=True)
    clear_attempt(work_dir)
    with leaving_error(work_dir, 0):
        context = replace(_context(plan, node), reusable=find_reusable(plan.store, node))
        prepare(stage_module(node.kind), context)
    if of is not None:
        write_division(work_dir, of)


def _context(plan: Plan, node: Node) -> StageContext:
    return replace(stage_context(plan, node, 0, plan.store.work_path(node.id)), world_size=1)


def _all_parts(node: Node, part: PartName, lock: ArtefactLock, work_dir: Path) -> list[PartRecord]:
    """The records of all parts, if this is the last one; from then on nobody else works on the stage."""
    # Before the others are counted: of two that end together, the one that counts last finds both and the lock free.
    lock.release()
    records = part_records(work_dir, part.of)
    left = [PartName(number, part.of) for number in range(1, part.of + 1) if number not in records]
    if left:
        more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        named = ", ".join(map(str, left[:_MOST_NAMED]))
        _say(f"{node.label}: part {part} is done; these are left: {named}{more}\n")
        return []
    if not lock.take_alone():
        _say(f"{node.label}: part {part} is done; another one is at work and will join them\n")
        return []
    for leftover in ("data", "model", "files", "trace"):
        remove_tree(work_dir / leftover)
    look_anew(work_dir / "shards")
    return list(records.values())


def _waiting(what: str) -> Callable[[str], None]:
    return lambda holder: _say(f"{what} by {holder}: waiting\n")


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
