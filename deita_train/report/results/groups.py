"""Cells that differ only in seeds form a group; quantities are estimated over the seeds of a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from deita_train.budget import in_words, is_mapping_budget
from deita_train.report.results.summary import Artefact, Cell, RunSummary

CONFIDENCE = 0.95
METHOD, WHOLE_POOL = "select.method", "whole_pool"

Reading = Callable[[Artefact], float | None]


@dataclass(frozen=True)
class Estimate:
    """Mean over ``n`` seeds; ``sd`` (n - 1 in the denominator) and ``half_width`` are None for a single one.

    ``half_width`` is half the 95% interval of the mean by Student's t with n - 1 degrees of freedom.
    """

    mean: float
    sd: float | None
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Difference of two means with its 95% interval (Welch's t); None where a group has a single seed."""

    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Group:
    """Cells with equal settings apart from seeds."""

    label: str
    settings: Mapping[str, Any]
    cells: tuple[Cell, ...]
    base: bool

    def artefacts(self, stage: str) -> list[Artefact]:
        """The group's distinct artefacts of ``stage``: cells that share one count once."""
        return list({cell.stages[stage].id: cell.stages[stage] for cell in self.cells if stage in cell.stages}.values())

    def num_planned(self, stage: str) -> int:
        """How many distinct artefacts of ``stage`` the group's cells were to have, those that failed among them."""
        return len({cell.planned[stage] for cell in self.cells if stage in cell.planned})

    @property
    def is_whole_pool(self) -> bool:
        """Whether the group's selection keeps every row: what a budget is compared with."""
        return all(_method(cell) == WHOLE_POOL for cell in self.cells)

    def values(self, stage: str, read: Reading) -> list[float]:
        """What ``read`` finds in each distinct artefact of ``stage``, without those in which it finds None."""
        found = (read(artefact) for artefact in self.artefacts(stage))
        return [float(value) for value in found if value is not None]

    def estimate(self, stage: str, read: Reading) -> Estimate | None:
        """Mean and interval of a quantity over the seeds, or None where no artefact has it."""
        values = self.values(stage, read)
        return estimate(values) if values else None

    def paired(self, stage: str, other_stage: str, read: Reading) -> list[float]:
        """What ``read`` finds in ``stage`` minus what it finds in ``other_stage``, of each cell that has both.

        Cells that share both artefacts count once.
        """
        differences: dict[tuple[str, str], float] = {}
        for cell in self.cells:
            if stage in cell.stages and other_stage in cell.stages:
                first, second = cell.stages[stage], cell.stages[other_stage]
                values = read(first), read(second)
                if values[0] is not None and values[1] is not None:
                    differences[first.id, second.id] = values[0] - values[1]
        return list(differences.values())


def is_seed(setting: str) -> bool:
    """Whether a dotted setting is a seed, by its name's end."""
    return setting.endswith("seed")


def groups_of(summary: RunSummary) -> list[Group]:
    """The run's groups, that of the recipe as written first, the others in the order of the cells."""
    members: dict[str, list[Cell]] = {}
    for cell in _without_twin(summary):
        members.setdefault(repr(sorted(_treatment(cell).items())), []).append(cell)
    ordered = sorted(members.values(), key=lambda cells: not any(cell.base for cell in cells))
    treatments = [_treatment(cells[0]) for cells in ordered]
    return [
        Group(_label(treatment, treatments, cells), treatment, tuple(cells), any(cell.base for cell in cells))
        for treatment, cells in zip(treatments, ordered, strict=True)
    ]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95% interval of one value or more."""
    n = len(values)
    # Seeds that share a value may differ in its last bit, by the order of a sum: that is no spread.
    if math.isclose(min(values), max(values), rel_tol=1e-12):
        return Estimate(values[0], None if n == 1 else 0.0, None if n == 1 else 0.0, n)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Estimate(mean, sd, float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n), n)


def difference(first: Estimate, second: Estimate) -> Difference:
    """``first`` minus ``second``; degrees of freedom by Welch and Satterthwaite, variances not assumed equal."""
    mean = first.mean - second.mean
    if first.sd is None or second.sd is None:
        return Difference(mean, None)
    variances = (first.sd**2 / first.n, second.sd**2 / second.n)
    total = sum(variances)
    if total == 0:
        return Difference(mean, (mean, mean))
    freedom = total**2 / (variances[0] ** 2 / (first.n - 1) + variances[1] ** 2 / (second.n - 1))
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return Difference(mean, (mean - half_width, mean + half_width))


def paired_difference(differences: Sequence[float]) -> Difference:
    """The mean of differences taken within pairs, with its 95% interval by Student's t; none for a single pair."""
    found = estimate(differences)
    if found.half_width is None:
        return Difference(found.mean, None)
    return Difference(found.mean, (found.mean - found.half_width, found.mean + found.half_width))


def _without_twin(summary: RunSummary) -> list[Cell]:
    """The cells, those of the sweep first by their settings; the recipe as written takes the place of its own twin.

    A sweep that names the recipe's own values has a cell with the same artefacts, as far as the sweep goes: counting
    both would count one measurement twice.
    """
    base = summary.base_cell
    others = [cell for cell in summary.cells if not cell.base]
    for cell in others:
        if cell.planned and all(base.planned.get(label) == artefact for label, artefact in cell.planned.items()):
            return [replace(base, settings=cell.settings) if other is cell else other for other in others]
    return list(summary.cells)


def _treatment(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in _flat(cell.settings) if not is_seed(name)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths with their values; a value that is a mapping, but no budget, gives one for each of its entries."""
    for name, value in settings.items():
        if isinstance(value, dict) and value and not is_mapping_budget(value):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _label(treatment: Mapping[str, Any], treatments: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> str:
    """The settings that tell this group from the others; a run of one group is named by its selection method."""
    label = settings_label(treatment, treatments)
    return label or (len(treatments) == 1 and method_label(cells)) or "recipe as written"


def settings_label(treatment: Mapping[str, Any], treatments: Sequence[Mapping[str, Any]]) -> str:
    """The settings of ``treatment`` that any of ``treatments`` does not share, as one text; empty without any."""
    paths = varying_paths(treatments)
    return ", ".join(_setting_text(path, treatment[path], paths) for path in paths if treatment.get(path) is not None)


def varying_paths(treatments: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that not all of ``treatments`` share, in their order; of paths that are joined the first one."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(path for treatment in treatments for path in treatment):
        values = [treatment.get(path) for treatment in treatments]
        if any(value != values[0] for value in values):
            found.setdefault(repr(values), path)
    return list(found.values())


def method_label(cells: Sequence[Cell]) -> str:
    """The selection method of the first cell that tells it; empty where none selects."""
    return next((_setting_text(METHOD, method, ()) for method in map(_method, cells) if method is not None), "")


def setting_name(path: str, others: Iterable[str] = ()) -> str:
    """``budget`` for ``select.budget``: the last part of a dotted path, in words; more where another ends alike."""
    parts = path.split(".")
    ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
    alike = [other for other in others if other != path]
    telling = (end for end in ends if not any(f".{other}".endswith(f".{end}") for other in alike))
    return next(telling, path).replace(".", " ").replace("_", " ")


def setting_value(value: Any) -> str:
    """``6,000``, ``0.001``, ``2e-5``, ``true``, ``5,000,000 tokens``: a setting's value as text."""
    if is_mapping_budget(value):
        return in_words(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value).replace("e-0", "e-")


def _method(cell: Cell) -> str | None:
    """The cell's selection method, by its settings or by what its selection says."""
    if METHOD in cell.settings:
        return str(cell.settings[METHOD])
    return str(cell.stages["select"].metric("method")) if "select" in cell.stages else None


def _setting_text(path: str, value: Any, paths: Iterable[str]) -> str:
    """``deita`` for a method, ``budget 6,000`` for a number; only as much of the path as tells it from the others."""
    if path.endswith("method"):
        return "whole pool" if value == WHOLE_POOL else str(value)
    return f"{setting_name(path, paths)} {setting_value(value)}"
