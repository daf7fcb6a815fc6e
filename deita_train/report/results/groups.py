"""Cells that differ only in seeds form a group, and a group is named by the settings that tell it from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deita_train.budget import in_words, is_mapping_budget
from deita_train.cell_settings import treatment_of
from deita_train.report.results.summary import Artefact, Cell, RunSummary
from deita_train.report.statistics import Estimate, estimate

METHOD, WHOLE_POOL = "select.method", "whole_pool"
BASE_RUN = "base run"

Reading = Callable[[Artefact], float | None]


@dataclass(frozen=True)
class Group:
    """Cells with equal settings apart from seeds; `base` where the base run is one of them."""

    label: str
    settings: Mapping[str, Any]
    cells: tuple[Cell, ...]
    base: bool

    @property
    def is_whole_pool(self) -> bool:
        """Whether the group's selection keeps every row: what a budget is compared with."""
        return all(_method(cell) == WHOLE_POOL for cell in self.cells)

    @property
    def method(self) -> str | None:
        """The selection method of its cells; None where they have several or select nothing."""
        methods = {_method(cell) for cell in self.cells}
        return methods.pop() if len(methods) == 1 else None

    def artefacts(self, stage: str) -> list[Artefact]:
        """The group's distinct artefacts of `stage`: one that several cells share counts once."""
        return list({cell.stages[stage].id: cell.stages[stage] for cell in self.cells if stage in cell.stages}.values())

    def num_planned(self, stage: str) -> int:
        """How many distinct artefacts of `stage` the group's cells planned, including those that failed."""
        return len({cell.planned[stage] for cell in self.cells if stage in cell.planned})

    def values(self, stage: str, read: Reading) -> list[float]:
        """What `read` finds in the distinct artefacts of `stage`; those in which it finds None are left out."""
        found = (read(artefact) for artefact in self.artefacts(stage))
        return [float(value) for value in found if value is not None]

    def estimate(self, stage: str, read: Reading) -> Estimate | None:
        """Mean and interval of a quantity over the seeds; None where no artefact has it."""
        values = self.values(stage, read)
        return estimate(values) if values else None

    def paired(self, stage: str, other_stage: str, read: Reading) -> list[float]:
        """What `read` finds in `stage` minus what it finds in `other_stage`, cell by cell.

        Cells that lack one of them are left out, and cells that share both artefacts count once.
        """
        differences: dict[tuple[str, str], float] = {}
        for cell in self.cells:
            if stage in cell.stages and other_stage in cell.stages:
                first, second = cell.stages[stage], cell.stages[other_stage]
                values = read(first), read(second)
                if values[0] is not None and values[1] is not None:
                    differences[first.id, second.id] = values[0] - values[1]
        return list(differences.values())


def groups_of(summary: RunSummary) -> list[Group]:
    """The run's groups: the base run's first, the others in the order of the cells."""
    members: dict[str, list[Cell]] = {}
    for cell in _without_twin(summary):
        members.setdefault(repr(sorted(treatment_of(cell.settings).items())), []).append(cell)
    ordered = sorted(members.values(), key=lambda cells: not any(cell.base for cell in cells))
    treatments = [treatment_of(cells[0].settings) for cells in ordered]
    return [
        Group(_label(treatment, treatments, cells), treatment, tuple(cells), any(cell.base for cell in cells))
        for treatment, cells in zip(treatments, ordered, strict=True)
    ]


def settings_label(treatment: Mapping[str, Any], treatments: Sequence[Mapping[str, Any]]) -> str:
    """The settings of `treatment` that any of `treatments` does not share, as one text; empty without any."""
    paths = varying_paths(treatments)
    return ", ".join(_setting_text(path, treatment[path], paths) for path in paths if treatment.get(path) is not None)


def varying_paths(treatments: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that not all of `treatments` share, in their order; of paths that are joined the first one."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(path for treatment in treatments for path in treatment):
        values = [treatment.get(path) for treatment in treatments]
        if any(value != values[0] for value in values):
            found.setdefault(repr(values), path)
    return list(found.values())


def method_label(cells: Sequence[Cell]) -> str:
    """The selection method of the first cell that has one; empty where none selects."""
    return next((_setting_text(METHOD, method, ()) for method in map(_method, cells) if method is not None), "")


def setting_name(path: str, others: Iterable[str] = ()) -> str:
    """`budget` for `select.budget`: the last part of a dotted path in words, or more where another path ends alike."""
    parts = path.split(".")
    ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
    rivals = [other for other in others if other != path]
    unique = (end for end in ends if not any(f".{rival}".endswith(f".{end}") for rival in rivals))
    return next(unique, path).replace(".", " ").replace("_", " ")


def setting_value(value: Any) -> str:
    """A setting's value as text: `6,000`, `0.001`, `2e-5`, `true`, `5,000,000 tokens`."""
    if is_mapping_budget(value):
        return in_words(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value).replace("e-0", "e-")


def _without_twin(summary: RunSummary) -> list[Cell]:
    """The cells, without the base run where a cell of the sweep repeats it.

    Such a twin has the same artefacts, as far as the sweep goes: counting both would count one measurement twice. The
    base run takes its place and its settings.
    """
    base = summary.base_cell
    others = [cell for cell in summary.cells if not cell.base]
    for cell in others:
        if cell.planned and all(base.planned.get(label) == artefact for label, artefact in cell.planned.items()):
            return [replace(base, settings=cell.settings) if other is cell else other for other in others]
    return list(summary.cells)


def _label(treatment: Mapping[str, Any], treatments: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> str:
    """The settings that tell this group from the others; a run of one group is named by its selection method."""
    label = settings_label(treatment, treatments)
    return label or (len(treatments) == 1 and method_label(cells)) or BASE_RUN


def _method(cell: Cell) -> str | None:
    """The cell's selection method, by its settings or by what its selection recorded."""
    if METHOD in cell.settings:
        return str(cell.settings[METHOD])
    return str(cell.stages["select"].metric("method")) if "select" in cell.stages else None


def _setting_text(path: str, value: Any, paths: Iterable[str]) -> str:
    """`deita` for a method, `budget 6,000` for another setting."""
    if path.endswith("method"):
        return "whole pool" if value == WHOLE_POOL else str(value)
    return f"{setting_name(path, paths)} {setting_value(value)}"
