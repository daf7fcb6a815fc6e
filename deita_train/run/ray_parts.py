"""Children of a run whose passes are made in parts on a Ray cluster; everything else is a child on this machine.

Ray starts a part anew when its worker or its node dies, and gives parts that wait to workers that join later.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from deita_train.errors import UserError
from deita_train.plan.division import is_divided
from deita_train.plan.launch import count_gpus
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, is_current
from deita_train.run.child.logs import user_error_in
from deita_train.run.child.part_process import PREPARE
from deita_train.run.children import Children, end_run
from deita_train.stages.context import Progress
from deita_train.store.attempt import PROGRESS, AttemptError
from deita_train.store.locks import PARENT_VARIABLE, die_with_parent
from deita_train.store.parts import PartName

# An address that starts Ray on this machine, for this run alone.
LOCAL = "local"
# So many parts for each worker that is there at the beginning: fewer would leave none for workers that join later.
_PARTS_A_WORKER = 4
# How often Ray starts a part anew whose worker or node died.
_STARTED_ANEW = 5
_POLL_SECONDS = 0.2


class RayChildren(Children):
    """Starts the parts of passes as tasks of a Ray cluster, and everything else here."""

    def __init__(self, threads: int, address: str, parts: int | None) -> None:
        """Connect to the cluster.

        Args:
            threads: of each part on CPUs, and of children here.
            address: of the cluster; `auto` for the one that this machine belongs to, `local` to start one here.
            parts: of each pass; None for four times as many as can run at once.

        Raises:
            UserError: Ray is not installed, or the cluster is not reached.
        """
        super().__init__(threads)
        self._ray = _connected(address)
        signal.signal(signal.SIGTERM, end_run)  # Ray has set its own
        self._threads = threads
        self._parts = parts

    def divides(self, plan: Plan, node: Node) -> bool:
        """Whether a stage is made in parts; a published one that `--fresh` rebuilds is not: parts take it as it is."""
        return is_divided(node) and not is_current(plan.store, node)

    def stage(self, plan: Plan, node: Node, tick: Callable[[], None]) -> int:
        """Carry out a stage, in parts if it can be; the exit code of the first process that failed for good."""
        if not self.divides(plan, node):
            return super().stage(plan, node, tick)
        work = _Work(self._ray, plan, node, self._threads, tick)
        code = work.carry_out([PREPARE])
        if code != 0 or is_current(plan.store, node):
            return code
        number = self._number_of_parts(plan, node)
        code = work.carry_out([str(PartName(part, number)) for part in range(1, number + 1)])
        if code == 0 and not is_current(plan.store, node):
            # Somebody else was at work on the stage when the last part ended, such as a preparation by hand.
            code = work.carry_out([str(PartName(1, number))])
        return code

    def _number_of_parts(self, plan: Plan, node: Node) -> int:
        from deita_train.inference.batches import read_plan

        batches = len(read_plan(plan.store.work_path(node.id) / "prepared" / "batches.npz").batches)
        there = self._ray.cluster_resources()
        workers = there.get("CPU", 0) // self._threads if node.runtime["launch"]["use_cpu"] else there.get("GPU", 0)
        return max(1, min(self._parts or _PARTS_A_WORKER * int(workers), batches))


def _connected(address: str) -> ModuleType:
    """Ray, connected to a cluster."""
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--ray needs the library Ray ({error}): pip install 'deita-train[ray]'.") from error
    try:
        # A plain address, and not that of Ray Client, which needs a server of its own.
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except ValueError:  # an existing cluster takes no settings
        _reach(ray, address)
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise _unreached(address, error) from error
    return ray


def _reach(ray: ModuleType, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise _unreached(address, error) from error


def _unreached(address: str, error: Exception) -> UserError:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(
        f"--ray {address}: no Ray cluster is reached there ({said}). Give its address such as 10.0.0.1:6379, auto on a "
        f"machine that belongs to it, or {LOCAL}."
    )


@dataclass
class _Work:
    """A stage whose parts are tasks of a cluster."""

    ray: ModuleType
    plan: Plan
    node: Node
    threads: int
    tick: Callable[[], None]

    def carry_out(self, parts: list[str]) -> int:
        """Do these parts; the exit code of the first that failed for good, whose error is then the stage's."""
        at_work = {self._start(part): part for part in parts}
        again: set[str] = set()
        try:
            while at_work:
                done, _ = self.ray.wait(list(at_work), num_returns=1, timeout=_POLL_SECONDS)
                for reference in done:
                    part = at_work.pop(reference)
                    code = self._code(reference, part)
                    if code != 0 and part not in again and self._passes(part):
                        again.add(part)
                        at_work[self._start(part)] = part  # perhaps on a machine with a better network
                    elif code != 0:
                        self._leave_error(part, code)
                        return code
                self._show(len(parts) - len(at_work), parts)
        finally:
            for reference in at_work:
                self.ray.cancel(reference, force=True)
        return 0

    def _start(self, part: str) -> Any:
        on_gpu = not self.node.runtime["launch"]["use_cpu"]
        needs = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_gpus": 0, "num_cpus": self.threads}
        task = self.ray.remote(max_retries=_STARTED_ANEW, **needs)(do_part)
        arguments = [*self.plan.arguments(), "--stage", self.node.id, "--part", part, "--gpus", str(count_gpus())]
        log = self._log(part)
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        return task.remote(["stage", *arguments], threads, str(Path.cwd()), str(log.absolute()))

    def _code(self, reference: Any, part: str) -> int:
        try:
            code: int = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            said = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
            AttemptError(0, f"part {part}: Ray has given it up ({said})", user_error=False).write(self._folder(part))
            return 1
        return code

    def _show(self, done: int, parts: list[str]) -> None:
        """Show how many parts are done; the preparation shows itself."""
        if parts != [PREPARE]:
            with suppress(OSError):  # the last part has just published the folder
                Progress(self._work_dir / PROGRESS).update(done, len(parts), "parts")
        self.tick()

    def _passes(self, part: str) -> bool:
        error = AttemptError.read(self._folder(part))
        return error is not None and error.passing

    def _leave_error(self, part: str, code: int) -> None:
        """Make a part's error that of the stage, for the run."""
        error = AttemptError.read(self._folder(part))
        mistake = user_error_in(self._log(part)) if error is None and code == UserError.exit_code else None
        if mistake is not None:
            error = AttemptError(0, mistake, user_error=True)
        if error is not None:  # it was tried again already
            replace(error, passing=False).write(self._work_dir)

    def _folder(self, part: str) -> Path:
        folder = self._work_dir if part == PREPARE else PartName.read(part).folder(self._work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _log(self, part: str) -> Path:
        name = part if part == PREPARE else PartName.read(part).file_name
        return self._work_dir / "logs" / f"part-{name}.log"

    @property
    def _work_dir(self) -> Path:
        return self.plan.store.work_path(self.node.id)


def do_part(arguments: list[str], variables: Mapping[str, str], folder: str, log: str) -> int:
    """A task of a Ray worker: `deita-train <arguments>` in a process that dies with the worker; its exit code."""
    environment = {name: value for name, value in os.environ.items() if name != PARENT_VARIABLE}
    with Path(log).open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deita_train.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, **variables},
            cwd=folder,
            preexec_fn=die_with_parent,
        )
        return process.wait()
