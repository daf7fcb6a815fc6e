"""The run's child processes: forked from a server that has imported everything, or started by `accelerate launch`."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any

from deita_train.errors import Stopped
from deita_train.plan.launch import Launch
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.run.child.environment import clear_environment, told_as_cleared
from deita_train.run.child.publishing import publishes_itself
from deita_train.run.child.targets import (
    forked_publish,
    forked_report,
    forked_stage,
    forked_stand_ins,
    forked_trials,
    in_environment,
)
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.locks import PARENT_VARIABLE, die_with_parent
from deita_train.training.stopping import STOP_FILE

# Imported once by the fork server, so that a forked child starts in a second instead of ten.
PRELOAD = ["deita_train.stages.preload"]
_POLL_SECONDS = 0.1
# Names of variables that the fork server may have; there is one server in this process.
_SERVERS: set[str] = set()


class Children:
    """Starts one child at a time and waits for it; children never outlive the run.

    SIGTERM ends the run with code 143, after a training in progress has ended its step and saved a checkpoint. A second
    SIGTERM ends everything at once.
    """

    def __init__(self, threads: int) -> None:
        os.environ[PARENT_VARIABLE] = str(os.getpid())
        signal.signal(signal.SIGTERM, end_run)
        sys.stderr.write(told_as_cleared(clear_environment(os.environ)))
        # OpenMP and tokenizers read these when they are loaded, so they are set before the fork server starts.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def load_libraries(self, tick: Callable[[], None]) -> None:
        """Start the fork server and wait until it has imported everything."""
        _SERVERS.update(os.environ)
        self._wait(self._context.Process(target=_nothing), tick)

    def stage(self, plan: Plan, node: Node, tick: Callable[[], None]) -> int:
        """Carry out a stage; the exit code of its process or its launcher."""
        log_dir = plan.store.work_path(node.id) / "logs"
        launch = Launch.from_dict(node.runtime["launch"]) if "launch" in node.runtime else None
        if launch is None or launch.forked:
            return self._fork(forked_stage, plan, node, log_dir / "rank0.log", tick)
        code = self._launch(plan, node, launch, log_dir / "launch.log", tick)
        if code == 0 and not publishes_itself(node):
            code = self._fork(forked_publish, plan, node, log_dir / "publish.log", tick)
        return code

    def divides(self, plan: Plan, node: Node) -> bool:
        """Whether a stage is made in parts, whose processes hold its lock themselves."""
        return False

    def trials(
        self,
        nodes: Sequence[Node],
        in_bfloat16: Sequence[tuple[str, float, bool]],
        result: Path,
        log: Path,
        tick: Callable[[], None],
    ) -> int:
        """Try trainings, and work in bfloat16, and write what was found to `result`; the exit code of the process."""
        arguments = (list(nodes), list(in_bfloat16), str(result), str(log))
        return self._wait(self._process(forked_trials, *arguments), tick)

    def stand_ins(
        self, request: Mapping[str, Any], folder: Path, result: Path, log: Path, tick: Callable[[], None]
    ) -> int:
        """Make the stand-ins of a rehearsal and write what was made to `result`; the exit code of the process."""
        arguments = (dict(request), str(folder), str(result), str(log))
        return self._wait(self._process(forked_stand_ins, *arguments), tick)

    def report(self, run_dir: Path, store_dir: Path, log: Path, tick: Callable[[], None]) -> int:
        """Write the report; the exit code of its process."""
        return self._wait(self._process(forked_report, str(run_dir), str(store_dir), str(log)), tick)

    def _fork(self, target: Callable[..., None], plan: Plan, node: Node, log: Path, tick: Callable[[], None]) -> int:
        arguments = (str(plan.loaded.path), list(plan.loaded.sets), str(plan.runs_dir), node.id, str(log))
        return self._wait(self._process(target, *arguments), tick)

    def _process(self, target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        """A child with this process's environment of now: the fork server has that of its own start."""
        removed = sorted(_SERVERS.difference(os.environ))
        return self._context.Process(target=in_environment, args=(dict(os.environ), removed, target, arguments))

    def _wait(self, process: ForkServerProcess, tick: Callable[[], None]) -> int:
        process.start()
        try:
            while process.is_alive():
                process.join(_POLL_SECONDS)
                tick()
        except BaseException:
            process.terminate()
            process.join()
            raise
        assert process.exitcode is not None
        return process.exitcode

    def _launch(self, plan: Plan, node: Node, launch: Launch, log: Path, tick: Callable[[], None]) -> int:
        command = launch.command(["stage", *plan.arguments(), "--stage", node.id])
        threads = max(1, int(os.environ["OMP_NUM_THREADS"]) // launch.num_processes)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                preexec_fn=die_with_parent,
            )
            try:
                while process.poll() is None:
                    time.sleep(_POLL_SECONDS)
                    tick()
            except BaseException as end:
                if isinstance(end, SystemExit) and STAGE_KINDS[node.kind].trains:
                    # The launcher would give its ranks 30 seconds, too little for a large checkpoint.
                    (plan.store.work_path(node.id) / STOP_FILE).touch()
                else:
                    process.send_signal(signal.SIGTERM)
                process.wait()
                raise
        return process.returncode


def end_run(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM."""
    sys.stderr.write("stopping: a training in progress saves a checkpoint first; run the same command to continue\n")
    raise SystemExit(Stopped.exit_code)


def _nothing() -> None:
    """A child that ends at once; it starts when the fork server is ready."""
