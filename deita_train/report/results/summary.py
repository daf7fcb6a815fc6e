"""Reads a run's folder and the artefacts that it names into one frozen record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.errors import UserError
from deita_train.report.results.examples import SelectionExamples, read_examples
from deita_train.store.model_links import artefact_of, links_of
from deita_train.store.rehearsals import RehearsedStage, read_rehearsal
from deita_train.store.run_record import (
    STATED_RECIPE,
    RecordedCell,
    RecordedFigure,
    RunRecord,
    read_failures,
    read_planned_costs,
)


@dataclass(frozen=True)
class Artefact:
    """One published artefact: its folder, its manifest and its metrics; and its chat template as the run names it."""

    folder: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    template: str | None = None

    @property
    def id(self) -> str:
        """The artefact's id, which is also its folder's name."""
        return str(self.manifest["id"])

    def metric(self, name: str) -> Any:
        """The metric `name`; an AssertionError with the file's path if it was never written."""
        if name not in self.metrics:
            raise AssertionError(f"{self.folder / 'metrics.json'} has no {name!r}; it has {sorted(self.metrics)}")
        return self.metrics[name]


@dataclass(frozen=True)
class Cell:
    """One cell of the sweep.

    Attributes:
        label: its name.
        settings: the swept settings.
        base: whether it is the base run.
        stages: the artefacts that were made, by the label of their stage.
        planned: the id of every artefact of the cell; it has more than `stages` only where the cell failed.
    """

    label: str
    settings: Mapping[str, Any]
    base: bool
    stages: Mapping[str, Artefact]
    planned: Mapping[str, str]

    @property
    def failed(self) -> bool:
        """Whether a stage of the cell failed."""
        return len(self.stages) < len(self.planned)


@dataclass(frozen=True)
class Failure:
    """An artefact that failed, and why; `user_error` marks a mistake in the recipe or its data."""

    artefact: str
    label: str
    message: str
    user_error: bool
    logs: Path


@dataclass(frozen=True)
class SelectionTrace:
    """What a selection did with each of the pool's N rows.

    The arrays of floats have NaN for null, and are None where the method wrote no such column.

    Attributes:
        kept: bool [N].
        evol_score: float [N].
        nearest_similarity: float [N]; NaN for a row that the walk did not reach or that had no kept row before it.
        num_turns: float [N].
        num_chars: float [N].
        boolean_columns: names of the kept rows' columns of type bool, whose means are shares.
    """

    kept: np.ndarray
    evol_score: np.ndarray | None
    nearest_similarity: np.ndarray | None
    num_turns: np.ndarray | None
    num_chars: np.ndarray | None
    boolean_columns: frozenset[str]


@dataclass(frozen=True)
class RunSummary:
    """All that a report needs of a run.

    `trace` is the base run's selection, and `examples` are rows of it. `stated_recipe` is the recipe without defaults,
    as it was run; None for a run of an earlier version. `links` has, relative to the run's folder, the links to its
    models. `published` are the figures of publications that stand beside the run's own, and `planned_costs` is what
    artefacts were expected to cost, by their ids. `rehearsal` has the stages of a rehearsal; it is empty for a
    real run.
    """

    name: str
    description: str
    seed: int
    cells: tuple[Cell, ...]
    trace: SelectionTrace | None
    recipe_text: str
    failures: tuple[Failure, ...] = ()
    links: tuple[str, ...] = ()
    published: tuple[RecordedFigure, ...] = ()
    planned_costs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rehearsal: tuple[RehearsedStage, ...] = ()
    examples: SelectionExamples | None = None
    stated_recipe: str | None = None

    @property
    def base_cell(self) -> Cell:
        """The recipe itself, without swept settings."""
        return next(cell for cell in self.cells if cell.base)

    @property
    def failed_cells(self) -> list[Cell]:
        """The cells of which a stage failed."""
        return [cell for cell in self.cells if cell.failed]

    def artefacts(self) -> dict[str, tuple[str, Artefact]]:
        """Every artefact of the run once, by id, with its stage's label, in the order of the pipeline."""
        found: dict[str, tuple[str, Artefact]] = {}
        for label in self.stage_labels():
            for cell in self.cells:
                if label in cell.stages:
                    found.setdefault(cell.stages[label].id, (label, cell.stages[label]))
        return found

    def stage_labels(self) -> list[str]:
        """The stages' labels in the order of the cells, those of the base run first."""
        cells = (self.base_cell, *self.cells)
        return list(dict.fromkeys(label for cell in cells for label in cell.stages))


def read_summary(run_dir: Path, store_dir: Path) -> RunSummary:
    """Read the run in `run_dir`, whose artefacts are folders of `store_dir`.

    Raises:
        UserError: `run_dir` is not a run, or an artefact of it lacks its manifest, its metrics or its data, as in a run
            that was stopped. Only a cell that failed may lack artefacts.
    """
    record = RunRecord.read(run_dir)
    opened: dict[str, Artefact] = {}
    failures = _read_failures(run_dir, store_dir)
    unmade = _unmade(record, failures)
    templates = {artefact: node.template for artefact, node in record.nodes.items()}
    cells = tuple(_read_cell(cell, store_dir, templates, opened, unmade) for cell in record.cells)
    num_base = sum(cell.base for cell in cells)
    assert num_base == 1, f"stages.json of {run_dir} marks {num_base} cells as the base run; there must be exactly one"
    base = next(cell for cell in cells if cell.base)
    select = base.stages.get("select")
    planned = {artefact_id for cell in cells for artefact_id in cell.planned.values()}
    stated = run_dir / STATED_RECIPE
    return RunSummary(
        name=record.name,
        description=record.description,
        seed=record.seed,
        cells=cells,
        trace=read_trace(select.folder) if select is not None else None,
        examples=_read_examples(select, store_dir) if select is not None else None,
        recipe_text=_existing(run_dir / "recipe.resolved.yaml").read_text(encoding="utf-8"),
        failures=tuple(failure for failure in failures if failure.artefact in planned),
        rehearsal=read_rehearsal(run_dir),
        stated_recipe=stated.read_text(encoding="utf-8") if stated.exists() else None,
        links=tuple(link.relative_to(run_dir).as_posix() for link in links_of(run_dir) if artefact_of(link) in planned),
        published=record.published,
        planned_costs=read_planned_costs(run_dir),
    )


def read_trace(folder: Path) -> SelectionTrace:
    """Read `trace/` (every row of the pool) of a selection, and of `data/` (the kept rows) the types."""
    trace = datasets.load_from_disk(str(_existing(folder / "trace")))
    kept_rows = datasets.load_from_disk(str(_existing(folder / "data")))
    return SelectionTrace(
        kept=~np.isnan(_floats(_column(trace, "selection_rank"))),
        evol_score=_optional_floats(trace, "evol_score"),
        nearest_similarity=_optional_floats(trace, "nearest_similarity"),
        num_turns=_optional_floats(trace, "num_turns"),
        num_chars=_optional_floats(trace, "num_chars"),
        boolean_columns=frozenset(
            name for name, feature in kept_rows.features.items() if getattr(feature, "dtype", None) == "bool"
        ),
    )


def _read_examples(select: Artefact, store_dir: Path) -> SelectionExamples:
    pool = store_dir / select.manifest["parents"]["pool"]
    _existing(pool / "data")
    return read_examples(select.folder, pool)


def _read_failures(run_dir: Path, store_dir: Path) -> list[Failure]:
    """What failed, with the folder of its logs."""
    return [
        Failure(of.artefact, of.label, of.message, of.user_error, store_dir / ".work" / of.artefact / "logs")
        for of in read_failures(run_dir)
    ]


def _unmade(record: RunRecord, failures: list[Failure]) -> set[str]:
    """The ids of the failed artefacts and of everything that needed them.

    The store may hold an older artefact of the same id, made from other content: it is no result of this run.
    """
    unmade = {failure.artefact for failure in failures}
    below: set[str] = set(unmade)
    while below:
        below = {name for name, node in record.nodes.items() if below & set(node.parents.values())} - unmade
        unmade |= below
    return unmade


def _read_cell(
    cell: RecordedCell,
    store_dir: Path,
    templates: Mapping[str, str | None],
    opened: dict[str, Artefact],
    unmade: set[str],
) -> Cell:
    """Open a cell's artefacts, but for those in `unmade`; `opened` caches what several cells share."""
    planned = cell.stages
    failed = not unmade.isdisjoint(planned.values())
    found = {}
    for label, artefact_id in planned.items():
        if artefact_id in unmade or (failed and not (store_dir / artefact_id).exists()):
            continue
        if artefact_id not in opened:
            opened[artefact_id] = _read_artefact(store_dir / artefact_id, templates.get(artefact_id))
        found[label] = opened[artefact_id]
    return Cell(cell.label, cell.settings, cell.base, found, planned)


def _read_artefact(folder: Path, template: str | None) -> Artefact:
    return Artefact(folder, _read_json(folder / "manifest.json"), _read_json(folder / "metrics.json"), template)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_existing(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}). Remove {path.parent}, and run the recipe again.") from error


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            f"{path} is missing: the run is not complete, or the file was removed. Run the recipe again; finished "
            "stages are not repeated."
        )
    return path


def _column(dataset: datasets.Dataset, name: str) -> pa.ChunkedArray:
    return dataset.select_columns([name]).with_format("arrow")[:][name]


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """A numeric column as float64 [N], null as NaN."""
    return column.cast(pa.float64()).to_numpy()


def _optional_floats(dataset: datasets.Dataset, name: str) -> np.ndarray | None:
    return _floats(_column(dataset, name)) if name in dataset.column_names else None
