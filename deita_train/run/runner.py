"""Carries out a plan: every artefact that is not there, one after another, then the report."""

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from deita_train.durable import read_json, remove_tree, write_json_atomically, write_text_atomically
from deita_train.errors import UserError, machine_fault
from deita_train.run.cells import SHARED, cell_nodes
from deita_train.run.children import Children
from deita_train.run.display import Display
from deita_train.run.failures import Failure, StageFailed, failures_error, keep_failures, run_lock
from deita_train.run.graph import Node
from deita_train.run.launch import Launch
from deita_train.run.locks import hold
from deita_train.run.plan import Plan, is_current, record
from deita_train.run.worker import ERROR_MARK


# No reason that a child leaves is longer.
_PROBE_CHARS = 65536


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the report's page, None when there is none, and the error to end with, if any."""

    page: Path | None
    error: Exception | None = None


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


def run_plan(plan: Plan, console: Console, fresh: str | None = None, cell: str | None = None) -> Outcome:
    """Make what is missing and write the report.

    `fresh` names a stage that is made anew although it is published; what reads it follows if its content changed.
    `cell` names one cell of a sweep, by label or number, or `shared`: only its artefacts are made, those that another
    run is making are waited for, and the report is written when nothing of the whole sweep is missing.

    A stage that fails ends the run of one cell: :class:`UserError` for what the user can mend, :class:`StageFailed`
    for the rest. A sweep goes on with what does not read it, and the outcome holds the error. What is published stays.
    """
    nodes = plan.nodes if cell is None else cell_nodes(plan, cell)
    renewed = _renewed(nodes, fresh)
    _write_record(plan)
    keep_failures(plan, tried=[node.id for node in nodes])
    display = Display(console, total=len(nodes) + 2)
    making = _Making(plan, _start_children(display), display, renewed, waits=cell is not None)
    making.make(nodes, goes_on=len(plan.cells) > 1 and cell in (None, SHARED))
    keep_failures(plan)
    if cell is not None and not _all_there(plan, display):
        return Outcome(None, making.error(None))
    return _outcome_with_report(plan, making)


def _start_children(display: Display) -> Children:
    children = Children(threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    display.start("loading libraries", "", None)
    children.load_libraries(display.tick)
    display.finish("")
    return children


class _Making:
    """Makes artefacts one after another and remembers which failed."""

    def __init__(self, plan: Plan, children: Children, display: Display, renewed: set[str], *, waits: bool) -> None:
        self.plan = plan
        self.children = children
        self.display = display
        self._renewed = renewed
        self._waits = waits
        self._times = _Times.of_earlier_runs(plan)
        self._failures: list[Failure] = []
        self._num_skipped = 0

    def make(self, nodes: Sequence[Node], *, goes_on: bool) -> None:
        """Make what is missing of `nodes`; unless it `goes_on`, the first failure is raised."""
        missing = {node.id for node in nodes if not self._is_made(node)}
        for number, node in enumerate(nodes):
            pending = [later.kind for later in nodes[number + 1 :] if later.id in missing]
            self.display.expect(self._times.means(), pending)
            failure = self._make(node)
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

    def _make(self, node: Node) -> Failure | None:
        cell = self.plan.cell_name(node)
        if self._is_made(node):
            self.display.skip(node.label, cell, "done before")
            return None
        read = {ancestor.key for ancestor in node.ancestors()}
        broken = [failure.node.label for failure in self._failures if failure.node.key in read]
        if broken:
            self._num_skipped += 1
            self.display.skip(node.label, cell, f"skipped: it reads {', '.join(broken)}, which failed")
            return None
        began = time.monotonic()
        failure = self._locked(node, cell)
        if failure is None:
            self._times.add(node.kind, time.monotonic() - began)
        return failure

    def _locked(self, node: Node, cell: str) -> Failure | None:
        store = self.plan.store
        on_wait = partial(self._say_who_is_at_work, node, cell) if self._waits else None
        with hold(store.lock_path(node.id), store.workers_lock_path(node.id), node.label, on_wait):
            if self._is_made(node):
                self.display.skip(node.label, cell, "made by another run meanwhile")
                return None
            if store.has(node.id):
                remove_tree(store.work_path(node.id))
            elif store.finish_publishing(node.id):
                self.display.skip(node.label, cell, "was published up to its last step")
                return None
            return self._carry_out(node, cell)

    def _say_who_is_at_work(self, node: Node, cell: str, holder: str) -> None:
        shown = f"{node.label}{f'  ({cell})' if cell else ''}"
        self.display.note(f"{shown}: waiting for {holder}")

    def _carry_out(self, node: Node, cell: str) -> Failure | None:
        store, work_dir = self.plan.store, self.plan.store.work_path(node.id)
        for leftover in ("error.json", "result.json", "progress.json"):
            (work_dir / leftover).unlink(missing_ok=True)
        self.display.start(node.label, cell, work_dir / "progress.json")
        made_before = store.manifest(node.id) if store.has(node.id) else None
        try:
            code = self.children.stage(self.plan, node, work_dir / "logs", self.display.tick)
        except BaseException:
            self.display.finish("stopped")
            raise
        if code != 0 or not store.has(node.id) or store.manifest(node.id) == made_before:
            self.display.finish("failed")
            return _failure(self.plan, node, code)
        self.display.finish(_published(self.plan, node))
        return None


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
    return Failure(node, cells, message, user_error, work_dir / "logs", _stage_command(plan, node))


def _write_fault(folder: Path) -> UserError | None:
    """Why nothing can be written in a folder now, if so: a child on a full disk cannot leave a word of it."""
    probe = folder / ".probe"
    try:
        write_text_atomically(probe, " " * _PROBE_CHARS)
        probe.unlink()
    except OSError as error:
        return machine_fault(OSError(error.errno, error.strerror), folder)
    return None


def _stage_command(plan: Plan, node: Node) -> str:
    arguments = ["stage", *plan.arguments(), "--stage", node.id]
    launch = Launch.from_dict(node.settings["launch"]) if "launch" in node.settings else None
    if launch is None or launch.forked:
        return f"deita-train {shlex.join(arguments)}"
    return launch.printed_command(arguments)


def _published(plan: Plan, node: Node) -> str:
    """One short phrase on what a stage gave."""
    manifest = plan.store.manifest(node.id)
    dropped = sum(manifest.drops.values())
    phrase = f"{manifest.rows_out:,} rows"
    if dropped:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(manifest.drops.items()))
        phrase += f", {dropped:,} dropped ({reasons})"
    return phrase


def _renewed(nodes: Sequence[Node], fresh: str | None) -> set[str]:
    if fresh is None:
        return set()
    named = {node.id for node in nodes if fresh in (node.kind, node.label)}
    if not named:
        labels = ", ".join(dict.fromkeys(node.label for node in nodes))
        raise UserError(f"--fresh {fresh}: there is no such stage; allowed: {labels}")
    return named


def _write_record(plan: Plan) -> None:
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    write_text_atomically(plan.run_dir / "recipe.resolved.yaml", _resolved_yaml(plan))
    write_json_atomically(plan.run_dir / "stages.json", record(plan))


def _resolved_yaml(plan: Plan) -> str:
    """The recipe with its overrides and every default filled in."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = StringIO()
    yaml.dump(plan.loaded.recipe.model_dump(exclude_none=True), text)
    return text.getvalue()


def _all_there(plan: Plan, display: Display) -> bool:
    """Whether every artefact of the sweep is made; says so, or how many are missing."""
    nodes = plan.nodes
    missing = [node for node in nodes if not is_current(plan.store, node)]
    if missing:
        display.skip("report", "", f"not written: still missing {len(missing)} of the sweep's {len(nodes)} artefacts")
    else:
        display.note(f"all of the sweep's {len(nodes)} artefacts are made")
    return not missing


def _outcome_with_report(plan: Plan, making: _Making) -> Outcome:
    """Write the report of what there is; that it fails too must not hide which stages failed."""
    log = plan.run_dir / "report.log"
    code = _report(plan, making.children, making.display, log)
    if code == 0:
        return Outcome(plan.run_dir / "report" / "report.html", making.error(None))
    mistake = _mistake_in(log) if code == 2 else None
    failed = f"report: {mistake}" if mistake else f"report failed: its log is {log}"
    error = making.error(failed)
    if error is None and mistake:
        raise UserError(failed)
    if error is None:
        raise StageFailed(f"{failed}\nThe artefacts are complete; the same command tries again.")
    return Outcome(None, error)


def _report(plan: Plan, children: Children, display: Display, log: Path) -> int:
    """The exit code of the child that writes the report."""
    display.expect({}, [])
    display.start("report", "", None)
    # Two cells that end together both find everything made.
    with hold(run_lock(plan), None, "report", on_wait=lambda holder: None):
        log.unlink(missing_ok=True)
        code = children.report(plan.run_dir, plan.store.folder, log, display.tick)
    display.finish(str(plan.run_dir / "report" / "report.html") if code == 0 else "failed")
    return code


def _mistake_in(log: Path) -> str | None:
    """The message that a child leaves at the end of its log when it ends with code 2."""
    text = log.read_text(errors="replace") if log.exists() else ""
    _, mark, message = f"\n{text}".rpartition(f"\n{ERROR_MARK}")
    return message.strip() if mark else None
