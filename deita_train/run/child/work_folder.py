"""The work folder of a stage, as each of its processes enters it: lock, context, and the error of a failure."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deita_train.errors import Stopped, UserError, is_passing, machine_fault
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.stages.context import Progress, StageContext
from deita_train.store.attempt import PROGRESS, AttemptError
from deita_train.store.locks import join_workers


@contextmanager
def work_folder(plan: Plan, node: Node, rank: int) -> Iterator[Path]:
    """The work folder of an artefact, with its workers' lock held.

    A failure inside leaves its reason in the folder; a fault of the machine, such as a full disk, becomes a
    :class:`UserError`.
    """
    work_dir = plan.store.work_path(node.id)
    work_dir.mkdir(parents=True, exist_ok=True)
    working = join_workers(plan.store.workers_lock_path(node.id))
    try:
        with leaving_error(work_dir, rank):
            yield work_dir
    finally:
        working.close()


@contextmanager
def leaving_error(folder: Path, rank: int) -> Iterator[None]:
    """Leave the reason of a failure in a folder; a fault of the machine becomes a :class:`UserError`."""
    try:
        yield
    except BaseException as error:
        fault = machine_fault(error, folder)
        # On a full disk not even this can be written; the run finds that out by itself.
        with suppress(OSError):
            _attempt_error(rank, fault or error, passing=is_passing(error)).write(folder)
        if fault is not None:
            raise fault from error
        raise


def _attempt_error(rank: int, error: BaseException, *, passing: bool) -> AttemptError:
    is_users = isinstance(error, UserError)
    message = str(error) if is_users else "".join(traceback.format_exception_only(error)).strip()
    return AttemptError(rank, message, is_users, stopped=isinstance(error, Stopped), passing=passing)


def stage_context(plan: Plan, node: Node, rank: int, work_dir: Path) -> StageContext:
    """The stage's view of its node.

    Raises:
        UserError: something that it reads is not made yet.
    """
    missing = [parent.label for parent in node.parents.values() if not plan.store.has(parent.id)]
    if missing:
        raise UserError(
            f"{node.label} reads {', '.join(missing)}, which is not made yet: run the recipe up to it first."
        )
    return StageContext(
        kind=node.kind,
        label=node.label,
        identity=node.identity,
        runtime=node.runtime,
        parents={name: plan.store.path(parent.id) for name, parent in node.parents.items()},
        work_dir=work_dir,
        rank=rank,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        progress=Progress(work_dir / PROGRESS if rank == 0 else None),
        shared_dir=plan.store.shared_dir if _is_one_of_several(plan, node) else None,
    )


def _is_one_of_several(plan: Plan, node: Node) -> bool:
    """Whether the plan has other stages of this kind over the same table, which may prepare the same rows."""
    tables = _tables(node)
    return bool(tables) and any(
        other.id != node.id and other.kind == node.kind and _tables(other) == tables for other in plan.nodes
    )


def _tables(node: Node) -> list[str]:
    return [node.parents[name].id for name in ("pool", "data") if name in node.parents]
