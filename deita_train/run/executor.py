"""Builds the missing artefacts of a run one after another, each in a child process, and collects the failures."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deita_train.errors import UserError, machine_fault
from deita_train.plan.cells import stage_command
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, is_current, missing_ids
from deita_train.run import retrying
from deita_train.run.children import Children
from deita_train.run.display import Display
from deita_train.run.failures import FailedNode, failures_error, update_failures
from deita_train.run.linking import link_stage
from deita_train.stages.facts import SAVED, saved_rows
from deita_train.store.artefacts import MANIFEST
from deita_train.store.atomic_io import remove_tree, write_text_atomically
from deita_train.store.attempt import PROGRESS, AttemptError, clear_attempt
from deita_train.store.locks import hold
from deita_train.store.retry_log import note_retry
from deita_train.training.stopping import STOP_FILE

# No error that a child leaves is longer.
_PROBE_CHARS = 65536


@dataclass
class _Times:
    """Seconds by kind of stage, to estimate the time left: of this run, or of earlier ones in the same store."""

    earlier: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of_earlier_runs(cls, plan: Plan) -> "_Times":
        times = cls()
        for artefact_id in plan.store.published():
            manifest = plan.store.manifest(artefact_id)
            times.add(manifest.kind, manifest.wall_seconds)
        return cls(times.means())

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def means(self) -> dict[str, float]:
        return self.earlier | {kind: sum(values) / len(values) for kind, values in self.seconds.items()}


class Executor:
    """Builds artefacts one after another and remembers which failed."""

    def __init__(self, plan: Plan, children: Children, display: Display, rebuilt: set[str], *, waits: bool) -> None:
        """Start with nothing built.

        Args:
            plan: the run's plan.
            children: starts the child processes.
            display: shows progress.
            rebuilt: ids of artefacts that are built even if they are published.
            waits: wait for an artefact that another run is building, instead of refusing.
        """
        self.plan = plan
        self.children = children
        self.display = display
        self._rebuilt = rebuilt
        self._waits = waits
        self._times = _Times.of_earlier_runs(plan)
        self._pending: dict[str, str] = {}
        self._failed: list[FailedNode] = []
        self._num_skipped = 0

    def build(self, nodes: Sequence[Node], *, goes_on: bool) -> None:
        """Build what is missing of `nodes`, which has parents before children.

        Raises the first failure, unless it `goes_on`: then what does not read a failed artefact is built as well.
        """
        self._pending = {node.id: node.kind for node in nodes if not self._is_done(node)}
        for node in nodes:
            failure = self._build_locked(node) if self._can_build(node) else None
            if failure is None:
                continue
            self._failed.append(failure)
            if len(self.plan.cells) > 1:
                update_failures(self.plan, missing_ids(self.plan), failed=[failure])
            if not goes_on:
                raise failure.error()

    @property
    def failed_ids(self) -> set[str]:
        """The ids of the artefacts that failed."""
        return {failure.node.id for failure in self._failed}

    def error(self, report_error: str | None) -> Exception | None:
        """What to end with; None when no stage failed."""
        return failures_error(self._failed, self._num_skipped, report_error) if self._failed else None

    def _is_done(self, node: Node) -> bool:
        return node.id not in self._rebuilt and is_current(self.plan.store, node)

    def _can_build(self, node: Node) -> bool:
        """Whether a stage is missing and can be built; shows why not."""
        if self._is_done(node):
            self._skip(node, "already done")
            return False
        read = {ancestor.key for ancestor in node.ancestors()}
        broken = [failure.node.label for failure in self._failed if failure.node.key in read]
        if broken:
            self._num_skipped += 1
            self._skip(node, f"skipped: it reads {', '.join(broken)}, which failed")
        return not broken

    def _skip(self, node: Node, why: str) -> None:
        self._pending.pop(node.id, None)
        self.display.skip(node.label, self.plan.cell_name(node), why)

    def _build_locked(self, node: Node) -> FailedNode | None:
        store = self.plan.store
        on_wait = partial(self._show_holder, node) if self._waits else None
        with hold(store.lock_path(node.id), store.workers_lock_path(node.id), node.label, on_wait):
            if not self._is_left(node):
                return None
            if not self.children.divides(self.plan, node):
                return self._carry_out(node)
        return self._carry_out(node)  # its parts hold the lock

    def _is_left(self, node: Node) -> bool:
        """Whether a stage is still missing once its lock is held."""
        store = self.plan.store
        if self._is_done(node):
            self._skip(node, "meanwhile built by another run")
            return False
        if store.has(node.id) or node.id in self._rebuilt:
            remove_tree(store.work_path(node.id))  # an earlier attempt was made from other content, or is unwanted
        elif store.finish_publishing(node.id):
            self._skip(node, "finished before; its publishing is now complete")
            return False
        return True

    def _show_holder(self, node: Node, holder: str) -> None:
        cell = self.plan.cell_name(node)
        self.display.note(f"{node.label}{f'  ({cell})' if cell else ''}: waiting for {holder}")

    def _carry_out(self, node: Node) -> FailedNode | None:
        """Carry out a stage, and once more after each wait if what failed may pass."""
        for tries, seconds in enumerate((*retrying.WAITS, None), 1):
            failure = self._attempt(node, again=tries > 1)
            if failure is None:
                return None
            if seconds is None or not failure.passing:
                self.display.finish("failed")
                return failure.after(tries)
            note_retry(self.plan.store.work_path(node.id), failure.message, seconds)
            self.display.finish(f"failed; tried again in {seconds:.0f} s: {failure.message}")
            time.sleep(seconds)
        raise AssertionError("the last try has no wait")

    def _attempt(self, node: Node, *, again: bool) -> FailedNode | None:
        """Run a stage in a child and show its progress."""
        work_dir = self.plan.store.work_path(node.id)
        clear_attempt(work_dir)
        (work_dir / STOP_FILE).unlink(missing_ok=True)
        self._pending.pop(node.id, None)
        self.display.expect(self._times.means(), list(self._pending.values()))
        self.display.start(node.label, self.plan.cell_name(node), work_dir / PROGRESS, again=again)
        before, began = self._mark(node), time.monotonic()
        try:
            code = self.children.stage(self.plan, node, self.display.tick)
        except BaseException:
            self.display.finish("stopped")
            raise
        if code != 0 or self._mark(node) in (None, before):
            return _failed_node(self.plan, node, code)
        link_stage(self.plan, node)
        self.display.finish(_counts(self.plan, node))
        self._times.add(node.kind, time.monotonic() - began)
        return None

    def _mark(self, node: Node) -> tuple[int, int] | None:
        """What tells a published manifest from one that replaces it; None when there is none."""
        try:
            stat = (self.plan.store.path(node.id) / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns


def _failed_node(plan: Plan, node: Node, code: int) -> FailedNode:
    """What is known of a stage whose child ended with `code`."""
    work_dir = plan.store.work_path(node.id)
    user_error = passing = False
    if error := AttemptError.read(work_dir):
        user_error, passing = error.user_error, error.passing
        message = error.message if user_error else f"rank {error.rank}: {error.message}"
    elif fault := _write_fault(work_dir):
        user_error, message = True, str(fault)
    else:
        message = f"its process ended with code {code}{_signal(code)}"
    cells = tuple(cell.label for cell in plan.owners(node))
    return FailedNode(node, cells, message, user_error, work_dir / "logs", stage_command(plan, node), passing)


def _signal(code: int) -> str:
    """What a negative exit code says: the number of the signal that ended the process."""
    if code == -signal.SIGKILL:
        return " (SIGKILL: killed by somebody, or by the system when memory was full; `dmesg` tells)"
    return f" ({signal.strsignal(-code)})" if code < 0 else ""


def _write_fault(folder: Path) -> UserError | None:
    """Why a folder cannot be written to, if so: a child on a full disk cannot leave its error."""
    probe = folder / ".probe"
    try:
        write_text_atomically(probe, " " * _PROBE_CHARS)
        probe.unlink()
    except OSError as error:
        return machine_fault(OSError(error.errno, error.strerror), folder)
    return None


def _counts(plan: Plan, node: Node) -> str:
    """The rows of a published artefact and its drops, in short."""
    manifest = plan.store.manifest(node.id)
    drops = {reason: count for reason, count in sorted(manifest.drops.items()) if reason not in SAVED}
    phrase = saved_rows(manifest) or f"{manifest.rows_out:,} rows"
    if drops:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in drops.items())
        phrase += f", {sum(drops.values()):,} dropped ({reasons})"
    return phrase
