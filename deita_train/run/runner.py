"""Carries out a plan: every artefact that is not there, one after another, then the report."""

import os
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from deita_train.durable import read_json, remove_tree, write_json_atomically, write_text_atomically
from deita_train.errors import UserError
from deita_train.run.children import Children
from deita_train.run.display import Display
from deita_train.run.graph import Node
from deita_train.run.launch import Launch
from deita_train.run.locks import hold
from deita_train.run.plan import Plan, is_current, planned_stages, record


class StageFailed(Exception):
    """A stage broke through no known mistake of the user's; the message says where to look and how to go on."""


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


def run_plan(plan: Plan, console: Console, fresh: str | None = None) -> Path:
    """Make what is missing and write the report; returns the report's page.

    `fresh` names a stage that is made anew although it is published; what reads it follows if its content changed.
    Raises :class:`UserError` for what the user can mend and :class:`StageFailed` for the rest; what is published
    stays.
    """
    _write_record(plan)
    stages = planned_stages(plan)
    renewed = _renewed(plan, fresh)
    children = Children(threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    display = Display(console, total=len(stages) + 2)
    times = _Times.of_earlier_runs(plan)
    display.start("loading libraries", "", None)
    children.load_libraries(display.tick)
    display.finish("")
    for number, stage in enumerate(stages):
        pending = [later.node.kind for later in stages[number + 1 :] if later.status != "done"]
        display.expect(times.means(), pending)
        cell = _cell_name(plan, stage.node)
        if is_current(plan.store, stage.node) and stage.node.id not in renewed:
            display.skip(stage.node.label, cell, "done before")
            continue
        began = time.monotonic()
        _run_stage(plan, stage.node, children, display, cell, anew=plan.store.has(stage.node.id))
        times.add(stage.node.kind, time.monotonic() - began)
    return _report(plan, children, display)


def _run_stage(plan: Plan, node: Node, children: Children, display: Display, cell: str, *, anew: bool) -> None:
    store = plan.store
    work_dir = store.work_path(node.id)
    with hold(store.lock_path(node.id), store.workers_lock_path(node.id), node.label):
        if store.has(node.id) and not anew:
            display.skip(node.label, cell, "made by another run meanwhile")
            return
        if anew:
            remove_tree(work_dir)
        elif store.finish_publishing(node.id):
            display.skip(node.label, cell, "was published up to its last step")
            return
        for leftover in ("error.json", "result.json", "progress.json"):
            (work_dir / leftover).unlink(missing_ok=True)
        display.start(node.label, cell, work_dir / "progress.json")
        made_before = store.manifest(node.id).started if store.has(node.id) else None
        try:
            code = children.stage(plan, node, work_dir / "logs", display.tick)
        except BaseException:
            display.finish("stopped")
            raise
        if code != 0 or not store.has(node.id) or store.manifest(node.id).started == made_before:
            display.finish("failed")
            raise _failure(plan, node, code)
        display.finish(_outcome(plan, node))


def _failure(plan: Plan, node: Node, code: int) -> Exception:
    """The error for a child that failed: what happened, where its logs lie, and the command that repeats it."""
    work_dir = plan.store.work_path(node.id)
    error_file = work_dir / "error.json"
    again = _stage_command(plan, node)
    if error_file.exists():
        error = read_json(error_file)
        if error["user_error"]:
            return UserError(f"{node.label}: {error['message']}")
        what = f"rank {error['rank']}: {error['message']}"
    else:
        what = f"its process ended with code {code}" + (" (killed by a signal)" if code < 0 else "")
    return StageFailed(
        f"{node.label} failed: {what}\n  logs:    {work_dir / 'logs'}\n  again:   {again}\n"
        "What is published stays; the same `deita-train run` continues here."
    )


def _stage_command(plan: Plan, node: Node) -> str:
    arguments = ["stage", *plan.arguments(), "--stage", node.id]
    launch = Launch.from_dict(node.settings["launch"]) if "launch" in node.settings else None
    if launch is None or launch.forked:
        return f"deita-train {shlex.join(arguments)}"
    return launch.printed_command(arguments)


def _outcome(plan: Plan, node: Node) -> str:
    """One short phrase on what a stage gave."""
    manifest = plan.store.manifest(node.id)
    dropped = sum(manifest.drops.values())
    phrase = f"{manifest.rows_out:,} rows"
    if dropped:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(manifest.drops.items()))
        phrase += f", {dropped:,} dropped ({reasons})"
    return phrase


def _renewed(plan: Plan, fresh: str | None) -> set[str]:
    if fresh is None:
        return set()
    named = {node.key for node in plan.nodes if fresh in (node.kind, node.label)}
    if not named:
        labels = ", ".join(dict.fromkeys(node.label for node in plan.nodes))
        raise UserError(f"--fresh {fresh}: the recipe has no such stage; it has {labels}")
    return {node.id for node in plan.nodes if node.key in named}


def _cell_name(plan: Plan, node: Node) -> str:
    """The sweep's setting that an artefact belongs to; empty when it serves the recipe as written."""
    owners = [cell for cell in plan.cells if any(other.key == node.key for other in cell.nodes.values())]
    return "" if any(cell.is_base for cell in owners) else owners[0].label


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


def _report(plan: Plan, children: Children, display: Display) -> Path:
    display.expect({}, [])
    display.start("report", "", None)
    log = plan.run_dir / "report.log"
    log.unlink(missing_ok=True)
    code = children.report(plan.run_dir, plan.store.folder, log, display.tick)
    if code != 0:
        display.finish("failed")
        raise StageFailed(f"report failed: its log is {log}\nThe artefacts are complete; the same command tries again.")
    page = plan.run_dir / "report" / "report.html"
    display.finish(str(page))
    return page
