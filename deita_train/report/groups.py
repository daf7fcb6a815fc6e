"""Cells that differ only in seeds form a group; quantities are estimated over the seeds of a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from deita_train.report.summary import Artefact, Cell, RunSummary

CONFIDENCE = 0.95

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

    def values(self, stage: str, read: Reading) -> list[float]:
        """What ``read`` finds in each distinct artefact of ``stage``, without those in which it finds None."""
        found = (read(artefact) for artefact in self.artefacts(stage))
        return [float(value) for value in found if value is not None]

    def estimate(self, stage: str, read: Reading) -> Estimate | None:
        """Mean and interval of a quantity over the seeds, or None where no artefact has it."""
        values = self.values(stage, read)
        return estimate(values) if values else None


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
    # A sum divided by n need not give back the value that all seeds share; the spread would then be a last bit.
    mean = values[0] if min(values) == max(values) else math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, 1)
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


def heldout_loss(artefact: Artefact) -> float:
    """Loss per token on the held-out rows after SFT, in nats."""
    return float(artefact.metric("heldout")["loss_per_token"])


def heldout_loss_before(artefact: Artefact) -> float | None:
    """Loss per token on the same rows before SFT, in nats, where it was measured."""
    before = artefact.metrics.get("before")
    return None if before is None else float(before["loss_per_token"])


def _without_twin(summary: RunSummary) -> list[Cell]:
    """The cells, those of the sweep first by their settings; the recipe as written takes the place of its own twin.

    A sweep that names the recipe's own values has a cell with the same artefacts, as far as the sweep goes: counting
    both would count one measurement twice.
    """
    base = summary.base_cell
    others = [cell for cell in summary.cells if not cell.base]
    own = {label: artefact.id for label, artefact in base.stages.items()}
    for cell in others:
        if all(own.get(label) == artefact.id for label, artefact in cell.stages.items()):
            return [replace(base, settings=cell.settings) if other is cell else other for other in others]
    return list(summary.cells)


def _treatment(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in cell.settings.items() if not is_seed(name)}


def _label(treatment: Mapping[str, Any], treatments: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> str:
    """The settings that tell this group from the others; a run of one group is named by its selection method."""
    telling = {
        name: value for name, value in treatment.items() if any(other.get(name) != value for other in treatments)
    }
    if telling:
        return ", ".join(_setting_text(name, value) for name, value in telling.items())
    select = cells[0].stages.get("select")
    return str(select.metric("method")) if select is not None and len(treatments) == 1 else "recipe as written"


def _setting_text(name: str, value: Any) -> str:
    """``deita`` for a method, ``budget 6,000`` for a number; the section's name is left out."""
    if name.endswith("method"):
        return str(value)
    text = str(value).lower() if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)
    return f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {text}"
