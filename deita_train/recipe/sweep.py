"""Cells of a sweep: the recipe as written, and one variant for each combination of the swept values."""

import itertools
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from deita_train.errors import UserError


@dataclass(frozen=True)
class CellData:
    """One variant of a recipe, not yet validated."""

    label: str
    settings: dict[str, Any]
    is_base: bool
    data: dict[str, Any]


def expand(data: Mapping[str, Any], where: str) -> tuple[list[CellData], str | None]:
    """The cells of a recipe's data and the stage after which the sweep's own cells end (`sweep.until`).

    A key of `sweep` is a dotted path, or several separated by commas that take the same value together. The first cell
    is the recipe as written.
    """
    plain = {name: value for name, value in data.items() if name != "sweep"}
    cells = [CellData("as written", {}, True, plain)]
    sweep = data.get("sweep")
    if sweep is None:
        return cells, None
    if not isinstance(sweep, dict):
        raise UserError(f"{where}: sweep: {sweep!r} is no mapping of dotted paths to lists of values")
    axes = {path: values for path, values in sweep.items() if path != "until"}
    if not axes:
        raise UserError(f"{where}: sweep: has no values to try; add select.budget: [1000, 3000], or leave sweep: out")
    for path, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: sweep.{path}: {values!r} is no list of values to try, such as [1, 2, 3]")
    swept = [path.strip() for paths in axes for path in paths.split(",")]
    twice = next((path for path in swept if swept.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: sweep.{twice}: is swept twice; state its values under one key")
    for combination in itertools.product(*axes.values()):
        cells.append(_cell(plain, dict(zip(axes, combination, strict=True)), where))
    return cells, sweep.get("until")


def _cell(plain: dict[str, Any], chosen: dict[str, Any], where: str) -> CellData:
    data = deepcopy(plain)
    settings = {path.strip(): value for paths, value in chosen.items() for path in paths.split(",")}
    for path, value in settings.items():
        _set(data, path, value, where)
    label = ", ".join(f"{paths.replace(' ', '')}={value}" for paths, value in chosen.items())
    return CellData(label, settings, False, data)


def _set(data: dict[str, Any], path: str, value: Any, where: str) -> None:
    *folders, name = path.split(".")
    place = data
    for folder in folders:
        inner = place.get(folder)
        if not isinstance(inner, dict):
            raise UserError(f"{where}: sweep.{path}: the recipe has no section {folder} to set {name} in")
        place = inner
    place[name] = value
