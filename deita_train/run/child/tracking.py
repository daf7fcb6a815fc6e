"""What a stage logs to wandb: its history by step and its final metrics, when the recipe has a `wandb:` section.

wandb runs in a process of its own (:mod:`deita_train.run.child.tracking_process`): if it fails, hangs or is slow
there, the stage does not stop, and waits for it only for a bounded time at its end.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.recipe.schema import Wandb
from deita_train.run.child.tracking_process import say
from deita_train.store.atomic_io import write_text_atomically

# How long the end of a stage may wait for the last upload.
FINISH_SECONDS = 20.0
_RUN_ID = "wandb_run"
_LONGEST_NAME = 128  # wandb refuses longer ones


class Tracker:
    """Logs nothing: the tracker without a `wandb:` section, and on every rank but the first."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of one step."""

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final metrics."""

    def finish(self, exit_code: int) -> None:
        """End the logging; 0 is a stage that did its work."""


class WandbTracker(Tracker):
    """Hands everything to the logging process. No method raises, and only `finish` waits."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        """Begin a run.

        Args:
            start: the arguments of `wandb.init`.

        Raises:
            OSError: the logging process does not start.
        """
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deita_train.run.child.tracking_process"],
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
        """Log the numbers and texts among the final metrics, nested ones as `outer/inner`; lists are left out."""
        self._send({"summary": dict(_scalars(values))})

    def finish(self, exit_code: int) -> None:
        """Wait for the logging process to end, and end it after `FINISH_SECONDS`."""
        self._send({"exit_code": exit_code})
        try:
            code = self._process.wait(FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"stopped, because it did not finish within {FINISH_SECONDS:g} seconds; its last data may be missing.")
            self._stop()
        else:
            self._lines.put(None)
            if code != 0:  # it reports its own errors and ends with 0
                say(f"its process ended with code {code}; nothing is logged from then on.")

    def _send(self, message: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(message, default=str).encode() + b"\n")

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError), pipe:  # a process that has ended said why, or `finish` does
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
    section = plan.loaded.recipe.wandb
    if section is None or rank != 0 or "launch" not in node.runtime or _mode(section) == "disabled":
        return Tracker()
    try:
        return WandbTracker(run_arguments(plan, node, section))
    except Exception as error:  # whatever it is, the stage goes on without
        say(f"logging is off for this stage: {type(error).__name__}: {error}")
        return Tracker()


def run_arguments(plan: Plan, node: Node, section: Wandb) -> dict[str, Any]:
    """The arguments of `wandb.init` for a stage; creates the folder for its files and the id of its run if needed."""
    cell, cell_name = plan.owners(node)[0], plan.cell_name(node)
    recipe = next(loaded.recipe for loaded in plan.loaded.cells if loaded.label == cell.label)
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    return {
        "mode": _mode(section),
        "project": section.project,
        "entity": section.entity,
        "group": recipe.name,
        "name": (f"{node.label} ({cell_name})" if cell_name else node.label)[:_LONGEST_NAME],
        "id": _run_id(plan.store.work_path(node.id), node.id),
        "job_type": node.kind,
        "dir": str(plan.run_dir.absolute()),
        "config": {
            "artefact": node.id,
            "kind": node.kind,
            "cell": dict(cell.settings),
            "stage": dict(node.identity),
            "made_from": _provenance(plan, node),
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
        },
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


def _scalars(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{path}{name}/")
        elif isinstance(value, bool | int | float | str):
            yield f"{path}{name}", value
