"""Cells of a sweep: the base run (the recipe as written), and one variant for each combination of swept values."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from deita_train.errors import UserError
from deita_train.recipe.cell_labels import Paths, cell_labels
from deita_train.recipe.wording import nearest

BASE_RUN = "base run"
_WHOLE_POOL_LABEL = "whole pool"
# Keys of `sweep` that are not paths.
OPTIONS = ("until", "whole_pool")
# Fields of `select` that hold for the whole pool, too.
_OF_WHOLE_POOL = frozenset({"decontaminate"})
# Sections that only the base run has.
OF_BASE_RUN = ("compare",)


@dataclass(frozen=True)
class CellData:
    """One variant of a recipe, not yet validated."""

    label: str
    settings: dict[str, Any]
    is_base: bool
    data: dict[str, Any]


@dataclass(frozen=True)
class _Variant:
    """What one cell of a sweep changes: the value of each path, and the paths and values that its label names."""

    settings: dict[str, Any]
    labelled: dict[Paths, Any]
    whole_pool: bool = False


def expand(data: Mapping[str, Any], where: str) -> tuple[list[CellData], str | None]:
    """Expand a recipe's sweep into cells.

    A key of ``sweep`` is a dotted path, or several, separated by commas, that take the same value together.
    ``sweep.whole_pool`` adds a cell for each combination of what lies outside ``select``, with the whole pool in place
    of a selection.

    Args:
        data: The recipe, with its sweep.
        where: The recipe's file, as messages name it.

    Returns:
        The cells, the base run first, and the stage after which the other cells end (``sweep.until``).

    Raises:
        UserError: The sweep is malformed, sweeps a path twice, or names a section that the recipe lacks.
    """
    plain = {name: value for name, value in data.items() if name != "sweep"}
    cells = [CellData(BASE_RUN, {}, True, plain)]
    sweep = data.get("sweep")
    if sweep is None:
        return cells, None
    if not isinstance(sweep, dict):
        raise UserError(f"{where}: sweep: {sweep!r} is not a mapping of dotted paths to lists of values")
    whole_pool = _wants_whole_pool(sweep, plain, where)
    axes = _axes(sweep, where)
    if not axes and not whole_pool:
        raise UserError(f"{where}: sweep: has no values to try; add select.budget: [1000, 3000], or leave sweep: out")
    variants = _selections(axes) + (_whole_pools(axes) if whole_pool else [])
    labels = cell_labels([variant.labelled for variant in variants])
    for variant, label in zip(variants, labels, strict=True):
        cells.append(_cell(plain, variant, label, where))
    _refuse_equal_labels(cells, where)
    return cells, sweep.get("until")


def _wants_whole_pool(sweep: Mapping[str, Any], plain: Mapping[str, Any], where: str) -> bool:
    wanted = sweep.get("whole_pool", False)
    if not isinstance(wanted, bool):
        raise UserError(f"{where}: sweep.whole_pool: {wanted!r} is not allowed; expected true or false")
    if wanted and plain.get("select") is None:
        raise UserError(
            f"{where}: sweep.whole_pool: is compared with a selection, and the recipe has no select: section. "
            "Add it, or leave whole_pool: out."
        )
    return wanted


def _axes(sweep: Mapping[str, Any], where: str) -> dict[Paths, list[Any]]:
    """Return what is swept: paths that take a value together, and their values."""
    axes = {key: values for key, values in sweep.items() if key not in OPTIONS}
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: sweep.{key}: {values!r} is not a list of values to try, such as [1, 2, 3]")
    parsed = [(tuple(path.strip() for path in key.split(",")), values) for key, values in axes.items()]
    of_base_run = [path for paths, _ in parsed for path in paths if path.split(".")[0] in OF_BASE_RUN]
    if of_base_run:
        raise UserError(f"{where}: sweep.{of_base_run[0]}: a sweep's cells have no compare:; leave it out")
    _refuse_overlap([path for paths, _ in parsed for path in paths], where)
    return dict(parsed)


def _refuse_overlap(swept: Sequence[str], where: str) -> None:
    """Refuse a path that is swept twice or lies inside another one, because one value would hide the other."""
    for path in swept:
        if swept.count(path) > 1:
            raise UserError(f"{where}: sweep.{path}: is swept twice; state its values under one key")
        around = next((other for other in swept if path.startswith(f"{other}.")), None)
        if around is not None:
            raise UserError(f"{where}: sweep.{path}: lies inside {around}, which is swept too; sweep one of the two")


def _selections(axes: Mapping[Paths, list[Any]]) -> list[_Variant]:
    """Return every combination of the values; none when nothing is swept."""
    return [_Variant(_flat(chosen), chosen) for chosen in _products(axes)] if axes else []


def _whole_pools(axes: Mapping[Paths, list[Any]]) -> list[_Variant]:
    """Return every combination of what does not lie under `select`."""
    kept = {paths: [path for path in paths if not _in_select(path)] for paths in axes}
    outside = {paths: values for paths, values in axes.items() if kept[paths]}
    return [
        _Variant({path: value for paths, value in chosen.items() for path in kept[paths]}, chosen, whole_pool=True)
        for chosen in _products(outside)
    ]


def _in_select(path: str) -> bool:
    return path == "select" or path.startswith("select.")


def _products(axes: Mapping[Paths, list[Any]]) -> Iterator[dict[Paths, Any]]:
    for combination in itertools.product(*axes.values()):
        yield dict(zip(axes, combination, strict=True))


def _flat(chosen: Mapping[Paths, Any]) -> dict[str, Any]:
    return {path: value for paths, value in chosen.items() for path in paths}


def _cell(plain: Mapping[str, Any], variant: _Variant, label: str, where: str) -> CellData:
    data = deepcopy({name: section for name, section in plain.items() if name not in OF_BASE_RUN})
    settings = variant.settings
    if variant.whole_pool:
        kept = {name: value for name, value in data["select"].items() if name in _OF_WHOLE_POOL}
        data["select"] = {"method": "whole_pool", **kept}
        settings = {"select.method": "whole_pool", **settings}
        label = ", ".join(filter(None, [_WHOLE_POOL_LABEL, label]))
    for path, value in variant.settings.items():
        _set(data, path, value, where)
    return CellData(label, settings, False, data)


def _refuse_equal_labels(cells: Sequence[CellData], where: str) -> None:
    labels = [cell.label for cell in cells]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: sweep: two cells are {twice!r}; state each value once")


def _set(data: dict[str, Any], path: str, value: Any, where: str) -> None:
    *folders, name = path.split(".")
    place = data
    for folder in folders:
        inner = place.get(folder)
        if not isinstance(inner, dict):
            sections = [key for key, section in place.items() if isinstance(section, dict)]
            near = None if folder in place else nearest(folder, sections)
            hint = f" (did you mean {near}?)" if near else ""
            raise UserError(f"{where}: sweep.{path}: the recipe has no section {folder} to set {name} in{hint}")
        place = inner
    place[name] = value
