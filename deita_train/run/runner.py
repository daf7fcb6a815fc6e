"""Carries out a plan: builds every missing artefact, then writes the report."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deita_train.errors import UserError
from deita_train.llm.endpoint import Endpoint, read_key
from deita_train.plan.cells import SHARED, cell_nodes
from deita_train.plan.cost.costs import PlanCost, run_cost
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan, missing_ids
from deita_train.run.child.logs import user_error_in
from deita_train.run.children import Children
from deita_train.run.display import Display
from deita_train.run.executor import Executor
from deita_train.run.failures import StageFailed, run_lock, update_failures
from deita_train.run.linking import link_models
from deita_train.run.ray_parts import RayChildren
from deita_train.run.recording import write_record
from deita_train.run.trials import try_trainings
from deita_train.selection.trace.fewer_than_budget import fewer_than_budget
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.locks import hold
from deita_train.store.run_record import STAGES, RunRecord


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster by its address, and the parts of each pass there; None for as many as suit it."""

    address: str
    parts: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the page of the report, if one was written, and the error to end with, if any."""

    page: Path | None
    error: Exception | None = None


def run_plan(
    plan: Plan,
    console: Console,
    fresh: str | None = None,
    cell: str | None = None,
    cluster: Cluster | None = None,
    cost: PlanCost | None = None,
) -> Outcome:
    """Build what is missing and write the report.

    A sweep goes on with what does not read a failed stage, and its outcome holds the error. Published artefacts stay.

    Args:
        plan: what to build.
        console: shows the progress.
        fresh: a stage that is rebuilt although it is published; what reads it follows if its content changed.
        cell: one cell of a sweep, by label or number, or `shared`. Only its artefacts are built, after waiting for
            those that another run is building; the report is written once the whole sweep is complete.
        cluster: where the parts of passes are computed; None for this machine alone.
        cost: what the plan costs, which the run keeps; None estimates it.

    Raises:
        UserError: a training would fail; nothing is built then. Or a stage of a recipe without a sweep, or of one
            cell, failed and the user can fix it.
        StageFailed: it failed for another reason.
    """
    nodes = plan.nodes if cell is None else cell_nodes(plan, cell)
    rebuilt = _rebuilt(nodes, fresh)
    missing = missing_ids(plan)
    _check_machines(nodes, missing | rebuilt)
    _check_keys(nodes, missing | rebuilt)
    display = Display(console, total=len(nodes) + 2)
    cost = run_cost(plan) if cost is None else cost
    children = _start_children(plan, {node.id for node in nodes} & (missing | rebuilt), display, cost, cluster)
    keeps_report = _is_part_of_reported(plan)
    if not keeps_report:
        write_record(plan, cost)
    update_failures(plan, missing, tried=[node.id for node in nodes])
    link_models(plan, without=rebuilt)
    executor = Executor(plan, children, display, rebuilt, waits=cell is not None)
    try:
        executor.build(nodes, goes_on=len(plan.cells) > 1 and cell in (None, SHARED))
    finally:
        plan.store.remove_shared()
    missing = missing_ids(plan)
    update_failures(plan, missing)
    for occupied in link_models(plan, without=executor.failed_ids):
        display.warn(f"{occupied} stays, though it is no link of a run; move it away for a link to the model there")
    _warn(plan, nodes, missing, display)
    if cell is not None and not _is_complete(plan, missing, display):
        return Outcome(None, executor.error(None))
    if keeps_report:
        why = "kept: it is of the whole run, of which --until makes a part; without --until it is written anew"
        display.skip("report", "", why)
        return Outcome(None, executor.error(None))
    return _outcome_with_report(plan, executor)


def _is_part_of_reported(plan: Plan) -> bool:
    """Whether `--until` leaves out stages that the run's report has."""
    if plan.until is None or not (plan.run_dir / "report").is_dir() or not (plan.run_dir / STAGES).exists():
        return False
    return set(plan.cells[0].nodes) < set(RunRecord.read(plan.run_dir).base_cell.stages)


def _warn(plan: Plan, nodes: Sequence[Node], missing: Collection[str], display: Display) -> None:
    """Tell what is suspicious about the run's artefacts, built now or before: selections below their budget, judges."""
    for node in nodes:
        if node.id not in missing:
            name = plan.cell_name(node)
            for warning in _warnings(plan, node):
                display.warn(f"{node.label}{f' ({name})' if name else ''}: {warning}")


def _warnings(plan: Plan, node: Node) -> Iterator[str]:
    kind = STAGE_KINDS[node.kind]
    fewer = fewer_than_budget(plan.store.metrics(node.id)) if kind.has_budget else None
    if fewer is not None:
        yield fewer
    if kind.warnings is not None:
        yield from kind.warnings(plan.store.metrics(node.id))


def build_stages(plan: Plan, console: Console) -> None:
    """Build what is missing of a recipe without a sweep, without a report. Raises as :func:`run_plan` does."""
    missing = missing_ids(plan)
    _check_machines(plan.nodes, missing)
    _check_keys(plan.nodes, missing)
    is_missing = bool(missing)
    display = Display(console, total=len(plan.nodes) + is_missing)
    cost = run_cost(plan)
    children = _start_children(plan, missing, display, cost) if is_missing else _children()
    write_record(plan, cost)
    link_models(plan)
    try:
        Executor(plan, children, display, set(), waits=False).build(plan.nodes, goes_on=False)
    finally:
        plan.store.remove_shared()


def _check_machines(nodes: Sequence[Node], missing: Collection[str]) -> None:
    """Refuse a launch that would wait for ranks on machines which this command cannot reach."""
    for node in nodes:
        launch = node.runtime.get("launch")
        if node.id in missing and launch is not None and launch["num_machines"] > 1:
            raise UserError(
                f"{node.label}: {launch['config_file']} is for {launch['num_machines']} machines, and this command "
                "starts processes on this one only. Run the line that `deita-train plan --stages` prints for it on "
                "each one (docs/slurm.md), or name another launch:."
            )


def _check_keys(nodes: Sequence[Node], missing: Collection[str]) -> None:
    """Refuse a run that lacks the key of a chat model: it may be asked after hours of training."""
    for node in nodes:
        endpoint = node.runtime.get("endpoint")
        if node.id in missing and endpoint is not None and "base_url" in endpoint:
            served = {name: endpoint[name] for name in ("name", "model", "base_url", "api_key_env") if name in endpoint}
            read_key(Endpoint(**served))


def _children(cluster: Cluster | None = None) -> Children:
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return Children(threads) if cluster is None else RayChildren(threads, cluster.address, cluster.parts)


def _start_children(
    plan: Plan, missing: Collection[str], display: Display, cost: PlanCost, cluster: Cluster | None = None
) -> Children:
    """Load the libraries, and try the trainings that are to be made and what a CPU is to do in bfloat16.

    Raises:
        UserError: one of them would fail or take much longer than in float32.
    """
    children = _children(cluster)
    display.start("loading libraries", "", None)
    children.load_libraries(display.tick)
    try:
        display.finish(try_trainings(plan, missing, children, display, cost))
    except BaseException:
        display.finish("stopped")
        raise
    return children


def _rebuilt(nodes: Sequence[Node], fresh: str | None) -> set[str]:
    if fresh is None:
        return set()
    named = {node.id for node in nodes if fresh in (node.kind, node.label)}
    if not named:
        labels = ", ".join(dict.fromkeys(node.label for node in nodes))
        raise UserError(f"--fresh {fresh}: there is no such stage; allowed: {labels}")
    return named


def _is_complete(plan: Plan, missing: Collection[str], display: Display) -> bool:
    """Whether every artefact of the sweep is built; shows so, or how many are missing."""
    number = len(plan.nodes)
    if missing:
        display.skip("report", "", f"not written: {len(missing)} of the sweep's {number} artefacts are still missing")
    else:
        display.note(f"all of the sweep's {number} artefacts are built")
    return not missing


def _outcome_with_report(plan: Plan, executor: Executor) -> Outcome:
    """Write the report of what there is; its own failure must not hide which stages failed."""
    log = plan.run_dir / "report.log"
    code = _report(plan, executor.children, executor.display, log)
    if code == 0:
        if log.exists() and not log.stat().st_size:
            log.unlink()
        return Outcome(plan.run_dir / "report" / "report.html", executor.error(None))
    mistake = user_error_in(log) if code == 2 else None
    failed = f"report: {mistake}" if mistake else f"report failed: its log is {log}"
    error = executor.error(failed)
    if error is None and mistake:
        raise UserError(failed)
    if error is None:
        raise StageFailed(f"{failed}\nThe artefacts are complete; run the same command again to retry.")
    return Outcome(None, error)


def _report(plan: Plan, children: Children, display: Display, log: Path) -> int:
    """The exit code of the child that writes the report."""
    display.expect({}, [])
    display.start("report", "", None)
    # Two cells that end together both find everything built.
    with hold(run_lock(plan), None, "report", on_wait=lambda holder: None):
        log.unlink(missing_ok=True)
        code = children.report(plan.run_dir, plan.store.folder, log, display.tick)
    display.finish(str(plan.run_dir / "report" / "report.html") if code == 0 else "failed")
    return code
