"""What a stage logs to wandb, trackio and TensorBoard: its history by step and its final metrics, the same to each.

Each of them that the recipe names (`wandb:`, `report_to:`) runs in a process of its own
(:mod:`deita_train.run.child.tracking_process`): if it fails, hangs or is slow there, the stage does not stop, and waits
for it only for a bounded time at its end.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.recipe.schema import Recipe, Wandb
from deita_train.run.child.tracking_process import say
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.atomic_io import write_text_atomically
from deita_train.store.model_links import cell_folders

# How long the end of a stage may wait for the last upload.
FINISH_SECONDS = 20.0
# Below this stand the final metrics, of which some have the names of curves.
FINAL = "final"
_RUN_ID = "wandb_run"
_LONGEST_NAME = 128  # wandb refuses longer ones


class Tracker:
    """Logs nothing: the tracker of a recipe that names none, and on every rank but the first."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of one step."""

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final metrics."""

    def finish(self, exit_code: int) -> None:
        """End the logging; 0 is a stage that did its work."""


class ProcessTracker(Tracker):
    """Hands everything to the logging process of one service. No method raises, and only `wait` waits."""

    def __init__(self, service: str, start: Mapping[str, Any]) -> None:
        """Begin a run.

        Args:
            service: a key of `RUNS` in `logged_runs.py`.
            start: what its run begins with.

        Raises:
            OSError: the logging process does not start.
        """
        self._service = service
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deita_train.run.child.tracking_process", service],
            stdin=subprocess.PIPE,
            env={**os.environ, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
            # So that Ctrl-C and a kill of the run's group miss it: it ends its own children after the stage.
            start_new_session=True,
        )
        # In a thread, because a write to the pipe may block.
        threading.Thread(target=self._write, daemon=True).start()
        self._send(start)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of one step, as one line of the history."""
        self._send({"log": {"step": step, **values}})

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final metrics as `final/name`, nested ones as `final/outer/inner`; lists are left out.

        Yes and no are 1 and 0, because not every service has them.
        """
        self._send({"summary": dict(_scalars(values, f"{FINAL}/"))})

    def finish(self, exit_code: int) -> None:
        """Ask the logging process to end."""
        self._send({"exit_code": exit_code})

    def wait(self, seconds: float) -> None:
        """Wait for the logging process, and end it after some seconds."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            say(
                self._service,
                f"stopped, because it did not finish within {FINISH_SECONDS:g} seconds; its last data may be missing.",
            )
            self._stop()
        else:
            self._lines.put(None)
            if code != 0:  # it reports its own errors and ends with 0
                say(self._service, f"its process ended with code {code}; nothing is logged from then on.")

    def _send(self, message: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(message, default=str).encode() + b"\n")

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError), pipe:  # a process that has ended said why, or `wait` does
            for line in iter(self._lines.get, None):
                pipe.write(line)
                pipe.flush()

    def _stop(self) -> None:
        self._lines.put(None)  # closes the pipe, at which it ends wandb's own processes too
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)


class Trackers(Tracker):
    """Several services at once."""

    def __init__(self, trackers: Sequence[ProcessTracker]) -> None:
        self._trackers = trackers

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of one step everywhere."""
        for tracker in self._trackers:
            tracker.log(values, step)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final metrics everywhere."""
        for tracker in self._trackers:
            tracker.summarize(values)

    def finish(self, exit_code: int) -> None:
        """Wait for the logging processes to end, and end them after `FINISH_SECONDS` all together."""
        for tracker in self._trackers:
            tracker.finish(exit_code)
        deadline = time.monotonic() + FINISH_SECONDS
        for tracker in self._trackers:
            tracker.wait(max(0.0, deadline - time.monotonic()))


@contextmanager
def tracking(plan: Plan, node: Node, rank: int) -> Iterator[Tracker]:
    """The tracker of one process of one stage, ended when the stage has ended."""
    tracker = _start(plan, node, rank)
    try:
        yield tracker
    except BaseException:
        tracker.finish(1)
        raise
    tracker.finish(0)


def _start(plan: Plan, node: Node, rank: int) -> Tracker:
    if rank != 0 or not ("launch" in node.runtime or STAGE_KINDS[node.kind].logged):
        return Tracker()
    started = [
        tracker
        for service, arguments in _services(plan.loaded.recipe).items()
        if (tracker := _started(service, arguments, plan, node)) is not None
    ]
    return Trackers(started) if started else Tracker()


def _services(recipe: Recipe) -> dict[str, Callable[[Plan, Node], dict[str, Any]]]:
    """What a recipe logs to, and what makes the arguments that a run there begins with."""
    section = recipe.wandb
    services: dict[str, Callable[[Plan, Node], dict[str, Any]]] = {}
    if section is not None and _mode(section) != "disabled":
        services["wandb"] = lambda plan, node: run_arguments(plan, node, section)
    named = recipe.report_to or ()
    return services | {name: arguments for name, arguments in _REPORTED.items() if name in named}


def _started(
    service: str, arguments: Callable[[Plan, Node], dict[str, Any]], plan: Plan, node: Node
) -> ProcessTracker | None:
    try:
        return ProcessTracker(service, arguments(plan, node))
    except Exception as error:  # whatever it is, the stage goes on without
        say(service, f"logging is off for this stage: {type(error).__name__}: {error}")
        return None


def run_arguments(plan: Plan, node: Node, section: Wandb) -> dict[str, Any]:
    """The arguments of `wandb.init` for a stage; creates the folder for its files and the id of its run if needed."""
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    return {
        "mode": _mode(section),
        "project": section.project,
        "entity": section.entity,
        "group": plan.loaded.recipe.name,
        "name": _shown(plan, node)[:_LONGEST_NAME],
        "id": _run_id(plan.store.work_path(node.id), node.id),
        "job_type": node.kind,
        "dir": str(plan.run_dir.absolute()),
        "config": _config(plan, node),
    }


def tensorboard_arguments(plan: Plan, node: Node) -> dict[str, Any]:
    """Where TensorBoard's files of a stage go: a folder named by stage and key, in one for its cell."""
    cell = plan.owners(node)[0]
    folders = cell_folders(other.label for other in plan.cells if not other.is_base)
    top = plan.run_dir.absolute() / "tensorboard"
    place = top if cell.is_base else top / folders[cell.label]
    folder = place / f"{node.label}-{node.key[:12]}"
    return {"folder": str(folder), "logdir": str(top), "config": _config(plan, node)}


def trackio_arguments(plan: Plan, node: Node) -> dict[str, Any]:
    """The arguments of `trackio.init` for a stage: a project for the recipe, a group for the cell.

    A run of trackio is resumed by its name, which therefore ends in the stage's key and mark.
    """
    _, _, mark = _run_id(plan.store.work_path(node.id), node.id).partition("-")
    cell = plan.owners(node)[0]
    return {
        "project": plan.loaded.recipe.name,
        "group": cell.label,
        "name": f"{_shown(plan, node)} {mark}",
        "config": _config(plan, node),
    }


# The services that `report_to:` names.
_REPORTED: Mapping[str, Callable[[Plan, Node], dict[str, Any]]] = {
    "tensorboard": tensorboard_arguments,
    "trackio": trackio_arguments,
}


def _shown(plan: Plan, node: Node) -> str:
    cell_name = plan.cell_name(node)
    return f"{node.label} ({cell_name})" if cell_name else node.label


def _config(plan: Plan, node: Node) -> dict[str, Any]:
    """The configuration of a stage's run: its settings, what it was made from, and its cell's recipe."""
    cell = plan.owners(node)[0]
    recipe = next(loaded.recipe for loaded in plan.loaded.cells if loaded.label == cell.label)
    return {
        "artefact": node.id,
        "kind": node.kind,
        "cell": dict(cell.settings),
        "stage": dict(node.identity),
        "made_from": _provenance(plan, node),
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
    }


def _provenance(plan: Plan, node: Node) -> dict[str, Any]:
    """Artefact, rows and content of everything that a stage is made from, by the stage's label."""
    labels = {of.id: of.label for of in node.ancestors() if plan.store.has(of.id)}  # most appear several times
    manifests = {label: plan.store.manifest(artefact) for artefact, label in labels.items()}
    return {
        label: {"artefact": of.id, "rows": of.rows_out, "dropped": of.drops, "content_digest": of.content_digest}
        for label, of in manifests.items()
    }


def _run_id(work_dir: Path, artefact_id: str) -> str:
    """The artefact's id and a mark kept in the work folder, which a resumed stage finds again.

    Without the mark a stage that is rebuilt, or run by another person in the same project, would write into an existing
    run.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    file = work_dir / _RUN_ID
    if not file.exists():
        write_text_atomically(file, f"{artefact_id}-{secrets.token_hex(3)}")
    return file.read_text()


def _mode(section: Wandb) -> str:
    """The recipe's mode, unless the environment asks for less."""
    wanted = os.environ.get("WANDB_MODE", "").lower()
    if wanted == "disabled":
        return "disabled"
    return "offline" if wanted in {"offline", "dryrun"} else section.mode


def _scalars(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{path}{name}/")
        elif isinstance(value, bool | int | float | str):
            yield f"{path}{name}", int(value) if isinstance(value, bool) else value
