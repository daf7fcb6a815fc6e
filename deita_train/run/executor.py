"""Makes the artefacts of a run one after another: what is missing, in child processes, and what failed of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deita_train.errors import UserError, machine_fault
from deita_train.plan.cells import stage_command
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, is_current
from deita_train.run.children import Children
from deita_train.run.display import Display
from deita_train.run.failures import Failure, failures_error, keep_failures
from deita_train.store.artefacts import MANIFEST
from deita_train.store.atomic_io import read_json, remove_tree, write_text_atomically
from deita_train.store.locks import hold
from deita_train.training.stopping import STOP_FILE

# No reason that a child leaves is longer.
_PROBE_CHARS = 65536


@dataclass
class _Times:
    """Seconds by kind of stage, for the time that is left: of this run, or of earlier ones in the same store."""

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
    """Makes artefacts one after another and remembers which failed."""

    def __init__(self, plan: Plan, children: Children, display: Display, renewed: set[str], *, waits: bool) -> None:
        self.plan = plan
        self.children = children
        self.display = display
        self._renewed = renewed
        self._waits = waits
        self._times = _Times.of_earlier_runs(plan)
        self._pending: dict[str, str] = {}
        self._failures: list[Failure] = []
        self._num_skipped = 0

    def make(self, nodes: Sequence[Node], *, goes_on: bool) -> None:
        """Make what is missing of `nodes`; unless it `goes_on`, the first failure is raised."""
        self._pending = {node.id: node.kind for node in nodes if not self._is_made(node)}
        for node in nodes:
            failure = self._make_locked(node) if self._is_wanted(node) else None
            if failure is None:
                continue
            self._failures.append(failure)
            if len(self.plan.cells) > 1:
                keep_failures(self.plan, failed=[failure])
            if not goes_on:
                raise failure.error()

    def error(self, report_error: str | None) -> Exception | None:
        """What to end with; None when no stage failed."""
        return failures_error(self._failures, self._num_skipped, report_error) if self._failures else None

    def _is_made(self, node: Node) -> bool:
        return node.id not in self._renewed and is_current(self.plan.store, node)

    def _is_wanted(self, node: Node) -> bool:
        """Whether a stage is to be made and can be; says why not."""
        if self._is_made(node):
            self._skip(node, "done before")
            return False
        read = {ancestor.key for ancestor in node.ancestors()}
        broken = [failure.node.label for failure in self._failures if failure.node.key in read]
        if broken:
            self._num_skipped += 1
            self._skip(node, f"skipped: it reads {', '.join(broken)}, which failed")
        return not broken

    def _skip(self, node: Node, why: str) -> None:
        self._pending.pop(node.id, None)
        self.display.skip(node.label, self.plan.cell_name(node), why)

    def _make_locked(self, node: Node) -> Failure | None:
        store, name = self.plan.store, self.plan.cell_name(node)
        on_wait = partial(self._say_who_is_at_work, node, name) if self._waits else None
        with hold(store.lock_path(node.id), store.workers_lock_path(node.id), node.label, on_wait):
            return self._carry_out(node) if self._is_left(node) else None

    def _is_left(self, node: Node) -> bool:
        """Whether a stage is still to be made once its lock is held."""
        store = self.plan.store
        if self._is_made(node):
            self._skip(node, "made by another run meanwhile")
            return False
        if store.has(node.id) or node.id in self._renewed:
            remove_tree(store.work_path(node.id))  # what an earlier attempt left serves another content, or is unwanted
        elif store.finish_publishing(node.id):
            self._skip(node, "was published up to its last step")
            return False
        return True

    def _say_who_is_at_work(self, node: Node, cell: str, holder: str) -> None:
        shown = f"{node.label}{f'  ({cell})' if cell else ''}"
        self.display.note(f"{shown}: waiting for {holder}")

    def _carry_out(self, node: Node) -> Failure | None:
        """Run a stage in a child and show how far it is."""
        work_dir = self.plan.store.work_path(node.id)
        for leftover in ("error.json", "result.json", "progress.json", STOP_FILE):
            (work_dir / leftover).unlink(missing_ok=True)
        self._pending.pop(node.id, None)
        self.display.expect(self._times.means(), list(self._pending.values()))
        self.display.start(node.label, self.plan.cell_name(node), work_dir / "progress.json")
        before, began = self._mark(node), time.monotonic()
        try:
            code = self.children.stage(self.plan, node, self.display.tick)
        except BaseException:
            self.display.finish("stopped")
            raise
        if code != 0 or self._mark(node) in (None, before):
            self.display.finish("failed")
            return _failure(self.plan, node, code)
        self.display.finish(_published(self.plan, node))
        self._times.add(node.kind, time.monotonic() - began)
        return None

    def _mark(self, node: Node) -> tuple[int, int] | None:
        """What tells a published manifest from one that replaces it; None when there is none."""
        try:
            stat = (self.plan.store.path(node.id) / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns


def _failure(plan: Plan, node: Node, code: int) -> Failure:
    """What a child that failed left: what happened, where its logs lie, and the command that repeats it."""
    work_dir = plan.store.work_path(node.id)
    error_file = work_dir / "error.json"
    user_error = False
    if error_file.exists():
        error = read_json(error_file)
        user_error = error["user_error"]
        message = error["message"] if user_error else f"rank {error['rank']}: {error['message']}"
    elif fault := _write_fault(work_dir):
        user_error, message = True, str(fault)
    else:
        message = f"its process ended with code {code}" + (" (killed by a signal)" if code < 0 else "")
    cells = tuple(cell.label for cell in plan.owners(node))
    return Failure(node, cells, message, user_error, work_dir / "logs", stage_command(plan, node))


def _write_fault(folder: Path) -> UserError | None:
    """Why nothing can be written in a folder now, if so: a child on a full disk cannot leave a word of it."""
    probe = folder / ".probe"
    try:
        write_text_atomically(probe, " " * _PROBE_CHARS)
        probe.unlink()
    except OSError as error:
        return machine_fault(OSError(error.errno, error.strerror), folder)
    return None


def _published(plan: Plan, node: Node) -> str:
    """One short phrase on what a stage gave."""
    manifest = plan.store.manifest(node.id)
    dropped = sum(manifest.drops.values())
    phrase = f"{manifest.rows_out:,} rows"
    if dropped:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(manifest.drops.items()))
        phrase += f", {dropped:,} dropped ({reasons})"
    return phrase
