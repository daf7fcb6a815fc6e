"""The plan of a run: which artefacts it needs, which are there, and why the others are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from deita_train.budget import in_words, is_mapping_budget
from deita_train.errors import UserError
from deita_train.plan.embedded_rows import without_unread_embedding
from deita_train.plan.graph import build_graph
from deita_train.plan.identity import with_implied
from deita_train.plan.inputs import Inputs
from deita_train.plan.node import Node, stages_until
from deita_train.plan.select_fields import check_select_fields
from deita_train.recipe.loading import LoadedRecipe, load_recipe, models_are_swept
from deita_train.store.artefacts import Store
from deita_train.store.attempt import AttemptError
from deita_train.store.parts import count_done
from deita_train.store.run_record import STAGES, RecordedCell, RecordedFigure, RecordedNode, RunRecord

# The folder of what single commands such as `score` keep, below that of all runs.
COMMANDS = "commands"
Status = Literal["done", "continues", "to run"]


@dataclass(frozen=True)
class Cell:
    """One variant of the recipe with its stages by label."""

    label: str
    settings: Mapping[str, Any]
    is_base: bool
    nodes: Mapping[str, Node]


@dataclass(frozen=True)
class PlannedStage:
    """One artefact that the run needs."""

    node: Node
    status: Status
    reason: str


@dataclass(frozen=True)
class Plan:
    """A loaded recipe, its cells as graphs, and where everything lies; `until` is the last stage of a part of it, and
    `planned_gpus` are those of each machine that will run it, None for this machine's.

    `unresolved` names what only the network could have told; the keys of stages that depend on it are not the run's.
    """

    loaded: LoadedRecipe
    cells: tuple[Cell, ...]
    runs_dir: Path
    until: str | None = None
    planned_gpus: int | None = None
    unresolved: tuple[str, ...] = ()

    @property
    def store(self) -> Store:
        """The store shared by every recipe under `runs_dir`."""
        return Store(self.runs_dir / "store")

    @property
    def run_dir(self) -> Path:
        """The folder of this recipe's run."""
        return run_folder(self.runs_dir, self.loaded.path, self.loaded.recipe.name)

    @property
    def nodes(self) -> list[Node]:
        """Every artefact once, parents before children."""
        unique: dict[str, Node] = {}
        for cell in self.cells:
            for node in cell.nodes.values():
                unique.setdefault(node.key, node)
        return list(unique.values())

    @cached_property
    def _owners(self) -> dict[str, list[Cell]]:
        owners: dict[str, list[Cell]] = {}
        for cell in self.cells:
            for key in dict.fromkeys(node.key for node in cell.nodes.values()):
                owners.setdefault(key, []).append(cell)
        return owners

    def owners(self, node: Node) -> list[Cell]:
        """The cells that need an artefact, in the order of the plan."""
        return self._owners[node.key]

    def cell_name(self, node: Node) -> str:
        """The cells that an artefact belongs to, in short; empty if it serves the base run."""
        first, *others = self.owners(node)
        if first.is_base:
            return ""
        more = f" and {len(others)} other{'s' if len(others) > 1 else ''}" if others else ""
        return f"{first.label}{more}"

    def node(self, name: str) -> Node:
        """The node with that id, or the base run's with that label.

        Raises:
            UserError: there is none, perhaps because the recipe has changed since the id was printed.
        """
        for node in self.nodes:
            if node.id == name:
                return node
        base = next(cell for cell in self.cells if cell.is_base)
        if name in base.nodes:
            return base.nodes[name]
        raise UserError(
            f"{self.loaded.path} has no stage {name}: the recipe or its data changed since. "
            f"`deita-train plan {self.loaded.path} --keys` prints the present ones."
        )

    def arguments(self) -> list[str]:
        """The command-line arguments that lead to this same plan."""
        sets = [part for text in self.loaded.sets for part in ("--set", text)]
        return [str(self.loaded.path), *sets, "--runs", str(self.runs_dir)]


def run_folder(runs_dir: Path, recipe_path: Path, name: str) -> Path:
    """Where a run keeps its record: runs/<name>, or beside the recipe that a single command wrote for itself."""
    of_command = runs_dir / COMMANDS / name
    return of_command if recipe_path.resolve().parent == of_command.resolve() else runs_dir / name


def store_folder(run_dir: Path) -> Path:
    """The store of the runs folder that a run's folder lies in."""
    place = run_dir.absolute().parent
    return (place.parent if place.name == COMMANDS else place) / "store"


def make_plan(
    recipe_path: Path,
    sets: Sequence[str],
    runs_dir: Path,
    until: str | None = None,
    planned_gpus: int | None = None,
    *,
    may_be_unresolved: bool = False,
) -> Plan:
    """Load a recipe and build its graph; writes only the cache of hashes and Hub commits.

    Args:
        recipe_path: the recipe.
        sets: `--set` overrides.
        runs_dir: the folder of all runs and their store.
        until: the last stage, by kind or label; None for all.
        planned_gpus: GPUs of each machine that will run it; None counts this machine's. The keys are those of the same
            plan on such a machine.
        may_be_unresolved: whether a stage may read what only the network could tell; it can then be shown, not run.

    Raises:
        UserError: for a mistake in the recipe.
    """
    loaded = load_recipe(recipe_path, sets)
    return plan_recipe(loaded, runs_dir, until, planned_gpus, may_be_unresolved=may_be_unresolved)


def plan_recipe(
    loaded: LoadedRecipe,
    runs_dir: Path,
    until: str | None = None,
    planned_gpus: int | None = None,
    *,
    may_be_unresolved: bool = False,
) -> Plan:
    """Build the graph of a loaded recipe, as `make_plan`.

    Raises:
        UserError: for a mistake in the recipe.
    """
    recipe_path = loaded.path
    check_select_fields(loaded)
    run_dir = run_folder(runs_dir, recipe_path, loaded.recipe.name)
    inputs = Inputs(
        runs_dir / "store", run_dir, recipe_path, planned_gpus, loaded.problem, may_be_unresolved=may_be_unresolved
    )
    inputs.check_reporting(loaded.recipe.report_to or ())
    cells: list[Cell] = []
    swept = models_are_swept(loaded)
    graphs = [build_graph(cell.recipe, inputs, models_are_swept=swept) for cell in loaded.cells]
    for cell, nodes in zip(loaded.cells, without_unread_embedding(graphs), strict=True):
        if not cell.is_base:
            try:
                nodes = stages_until(nodes, loaded.sweep_until)
            except UserError as error:
                raise UserError(f"{recipe_path}: sweep.{error}") from None
        nodes = _cut(nodes, until, cells[0].nodes if cells else None)
        cells.append(Cell(cell.label, cell.settings, cell.is_base, nodes))
    inputs.check_trusted(dict.fromkeys(name for cell in loaded.cells for name in cell.recipe.trust_remote_code or ()))
    inputs.save()
    return Plan(loaded, tuple(cells), runs_dir, until, planned_gpus, tuple(inputs.unresolved))


def _cut(nodes: dict[str, Node], until: str | None, of_base: Mapping[str, Node] | None) -> dict[str, Node]:
    """`--until` for one cell; a cell without that stage keeps what it shares with the base run."""
    if until is None:
        return nodes
    if of_base is not None and not any(until in (node.kind, node.label) for node in nodes.values()):
        common = [node for label, node in nodes.items() if label in of_base]
        kept = {node.key for end in common for node in (end, *end.ancestors())}
        return {label: node for label, node in nodes.items() if node.key in kept}
    try:
        return stages_until(nodes, until)
    except UserError as error:
        raise UserError(f"--{error}; give one of these, or leave --until out") from None


def planned_stages(plan: Plan) -> list[PlannedStage]:
    """Every artefact of the plan with its status and, when it must run, the reason."""
    before = _previous(plan)
    stages = []
    for node in plan.nodes:
        if node.is_unresolved:
            stages.append(PlannedStage(node, "to run", "what it reads is unresolved"))
        elif is_current(plan.store, node):
            stages.append(PlannedStage(node, "done", "published"))
        elif plan.store.has(node.id):
            stages.append(PlannedStage(node, "to run", "what it reads was rebuilt"))
        elif plan.store.work_path(node.id).exists():
            reason = f"an earlier attempt {_how_it_ended(plan.store.work_path(node.id))}"
            stages.append(PlannedStage(node, "continues", reason))
        else:
            stages.append(PlannedStage(node, "to run", _why(node, _former(plan, node, before))))
    return stages


def _how_it_ended(work_dir: Path) -> str:
    """How an attempt ended, by the error that it left, or how many of its parts are done."""
    parts = count_done(work_dir)
    if parts is not None:
        return f"has {parts[0]} of {parts[1]} parts done"
    error = AttemptError.read(work_dir)
    if error is None:
        return "was interrupted"
    return "was stopped" if error.stopped else "failed"


def parent_digests(store: Store, node: Node) -> dict[str, str]:
    """The content digests of the published parents that decide a node's content."""
    return {name: store.manifest(parent.id).content_digest for name, parent in node.decisive.items()}


def is_current(store: Store, node: Node) -> bool:
    """Whether an artefact is published and was made from its parents' present content.

    `--fresh` can give a parent other content under the same key, for instance on another device. A parent that was
    removed does not matter, nor does one in whose place the artefact was made from another stage of equal standing.
    """
    if not store.has(node.id):
        return False
    manifest = store.manifest(node.id)
    return all(
        manifest.parents.get(name, parent.id) != parent.id
        or not store.has(parent.id)
        or store.manifest(parent.id).content_digest == manifest.parent_digests[name]
        for name, parent in node.decisive.items()
    )


def missing_ids(plan: Plan) -> set[str]:
    """The ids of the artefacts that are to be built. Asked once per phase of a run and handed on."""
    return {node.id for node in plan.nodes if not is_current(plan.store, node)}


def run_record(plan: Plan) -> RunRecord:
    """What a run keeps of a plan: its cells with their artefacts, and each artefact's configuration."""
    recipe = plan.loaded.recipe
    cells = tuple(
        RecordedCell(
            cell.label, dict(cell.settings), cell.is_base, {label: node.id for label, node in cell.nodes.items()}
        )
        for cell in plan.cells
    )
    nodes = {
        node.id: RecordedNode(
            node.label,
            node.kind,
            node.identity,
            {name: parent.id for name, parent in node.parents.items()},
            node.runtime.get("template"),
        )
        for node in plan.nodes
    }
    published = tuple(
        RecordedFigure(measure, entry.model, value, entry.source, entry.cell)
        for entry in (recipe.report.published if recipe.report is not None else ())
        for measure, value in entry.figures.items()
    )
    return RunRecord(recipe.name, recipe.description, recipe.seed, cells, nodes, published)


def _previous(plan: Plan) -> dict[str, dict[str, RecordedNode]]:
    """The stages of the last run of this recipe, by the label of the cell and of the stage."""
    if not (plan.run_dir / STAGES).exists():
        return {}
    last = RunRecord.read(plan.run_dir)
    return {cell.label: {label: last.nodes[artefact] for label, artefact in cell.stages.items()} for cell in last.cells}


def _former(plan: Plan, node: Node, before: Mapping[str, Mapping[str, RecordedNode]]) -> RecordedNode | None:
    """What the last run had in a node's place, in the first of its cells that the last run had too."""
    cells = (before.get(cell.label, {}) for cell in plan.owners(node))
    return next((stages[node.label] for stages in cells if node.label in stages), None)


def _why(node: Node, old: RecordedNode | None) -> str:
    if old is None:
        return "not made yet"
    before, now = (with_implied(node.kind, config) for config in (old.config, node.identity))
    changes = list(_differences(before, now, ""))
    if changes:
        return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
    moved = [parent.label for name, parent in node.parents.items() if old.parents.get(name) != parent.id]
    return f"{', '.join(moved)} changed" if moved else "not made yet"


def _differences(old: Any, new: Any, path: str) -> list[str]:
    """Readable lines for every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict) and not is_mapping_budget(new):
        names = sorted({*old, *new})
        return [line for name in names for line in _differences(old.get(name), new.get(name), f"{path}.{name}")]
    if old == new:
        return []
    return [f"{path.lstrip('.')}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    if is_mapping_budget(value):
        return in_words(value)
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
