"""What a run keeps of itself: its cells and artefacts (stages.json), what failed (failures.json), what it would cost.

The fields of these classes are the keys of the JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.store.atomic_io import read_json, write_json_atomically

STAGES = "stages.json"
FAILURES = "failures.json"
COSTS = "planned_costs.json"
# The recipe with `--set` laid over it and no defaults: running it is running the same again.
STATED_RECIPE = "recipe.stated.yaml"


@dataclass(frozen=True)
class RecordedCell:
    """One cell of the recipe: the swept settings, and the artefact of each stage by the stage's label."""

    label: str
    settings: Mapping[str, Any]
    base: bool
    stages: Mapping[str, str]


@dataclass(frozen=True)
class RecordedNode:
    """What an artefact is made from: its configuration, and the artefacts that it reads by their role.

    `template` says in words which chat template renders its rows and who chose it; None for a stage without one, and in
    the records of earlier versions.
    """

    label: str
    kind: str
    config: Mapping[str, Any]
    parents: Mapping[str, str]
    template: str | None = None


@dataclass(frozen=True)
class RecordedFigure:
    """A published figure that the report shows beside the run's own.

    Attributes:
        measure: its name in the recipe.
        model: the last part of the label of the stage that it is compared with.
        value: as published, in percent unless it is a rating.
        source: where it is published.
        cell: the settings of the cell; None for the base run.
    """

    measure: str
    model: str
    value: float
    source: str
    cell: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run's cells and, by artefact id, their nodes; and the published figures that its recipe names."""

    name: str
    description: str
    seed: int
    cells: tuple[RecordedCell, ...]
    nodes: Mapping[str, RecordedNode]
    published: tuple[RecordedFigure, ...] = ()

    @classmethod
    def read(cls, run_dir: Path) -> "RunRecord":
        """The record of a run.

        Raises:
            UserError: `run_dir` is not the folder of a run, or its record is damaged.
        """
        path = run_dir / STAGES
        if not path.is_file():
            raise UserError(
                f"{run_dir} is not a run: it has no {STAGES}. Give the folder that `run` wrote, runs/<name>."
            )
        data = read_json(path)
        try:
            cells = tuple(RecordedCell(**cell) for cell in data["cells"])
            nodes = {artefact: RecordedNode(**node) for artefact, node in data["nodes"].items()}
            published = tuple(RecordedFigure(**figure) for figure in data.get("published", ()))
            return cls(**{**data, "cells": cells, "nodes": nodes, "published": published})
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); remove it and run again.") from error

    def write(self, run_dir: Path) -> None:
        """Replace the record of a run."""
        write_json_atomically(run_dir / STAGES, asdict(self))

    @property
    def base_cell(self) -> RecordedCell:
        """The recipe itself, without swept settings."""
        return next(cell for cell in self.cells if cell.base)


@dataclass(frozen=True)
class RecordedFailure:
    """An artefact that failed when it was last tried.

    Attributes:
        cells: the labels of the cells that need it.
        user_error: whether the user can fix it.
    """

    artefact: str
    label: str
    cells: Sequence[str]
    message: str
    user_error: bool


def read_failures(run_dir: Path) -> list[RecordedFailure]:
    """The failures of a run; none where it has no such file."""
    path = run_dir / FAILURES
    return [RecordedFailure(**failure) for failure in read_json(path)] if path.exists() else []


def write_failures(run_dir: Path, failures: Sequence[RecordedFailure]) -> None:
    """Replace the failures of a run; without any there is no file."""
    path = run_dir / FAILURES
    if failures:
        write_json_atomically(path, [asdict(failure) for failure in failures])
    else:
        path.unlink(missing_ok=True)


def read_planned_costs(run_dir: Path) -> dict[str, dict[str, Any]]:
    """What each artefact was expected to cost, by its id; empty for a run of an earlier version."""
    path = run_dir / COSTS
    return dict(read_json(path)) if path.exists() else {}


def keep_planned_costs(run_dir: Path, costs: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the expected costs of artefacts that the run did not have before; what was expected first stays."""
    write_json_atomically(run_dir / COSTS, {**costs, **read_planned_costs(run_dir)})
