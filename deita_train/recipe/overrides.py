"""``--set a.b=c`` on the command line: values laid over a recipe before it is checked."""

import copy
from collections.abc import Sequence
from typing import Any

from deita_train.errors import UserError
from deita_train.recipe.wording import describe
from deita_train.recipe.yaml_source import parse_value

_SWEEP = "sweep"


def apply_overrides(data: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``data`` with each ``path=value`` of ``sets`` laid over it, in order; the last one wins.

    The value is YAML by the rules of a recipe; an empty one is null, and null removes nothing. The path's elements are
    keys, or 0-based indices where the recipe has a list; missing mappings are created. After ``sweep.`` the rest of the
    path is one key, because a sweep's keys are themselves paths (``sweep.select.budget=[1000, 3000]``).

    Raises:
        UserError: No ``=``, an empty path or key, a path through something other than a mapping or a list, an index
            outside its list, or a value that is not YAML. The message names the ``--set``.
    """
    result = copy.deepcopy(data)
    for setting in sets:
        source = f"--set {setting}"
        path = override_path(setting)
        _place(result, path, parse_value(setting.partition("=")[2], source=source), source)
    return result


def override_path(setting: str) -> tuple[str, ...]:
    """Return the path that the ``path=value`` of one ``--set`` writes to, as text elements.

    Raises:
        UserError: There is no ``=``, or an element of the path is empty.
    """
    dotted, equals, _ = setting.partition("=")
    if not equals:
        raise UserError(f"--set {setting}: no '='; write it as path=value, for instance select.budget=6000")
    path = tuple(dotted.strip().split("."))
    if not all(path):
        raise UserError(f"--set {setting}: the path {dotted!r} has an empty part; write it as section.key=value")
    return (_SWEEP, ".".join(path[1:])) if path[0] == _SWEEP and len(path) > 1 else path


def _place(data: dict[str, Any], path: tuple[str, ...], value: Any, source: str) -> None:
    """Write ``value`` at ``path`` of ``data``, in place."""
    container: Any = data
    for depth, key in enumerate(path):
        key_or_index = _index(container, path[:depth], key, source) if isinstance(container, list) else key
        if depth == len(path) - 1:
            container[key_or_index] = value
            return
        container = _step(container, key_or_index, path[: depth + 1], source)


def _step(container: Any, key: Any, reached: tuple[str, ...], source: str) -> Any:
    """Return the container at ``key``, creating a mapping where there is nothing yet."""
    inner = container[key] if isinstance(container, list) else container.get(key)
    if inner is None:
        inner = container[key] = {}
    if not isinstance(inner, dict | list):
        raise UserError(
            f"{source}: {'.'.join(reached)} is not a section: {describe(inner)}; set {'.'.join(reached)} itself instead"
        )
    return inner


def _index(items: list[Any], reached: tuple[str, ...], key: str, source: str) -> int:
    if not (key.isascii() and key.isdigit()) or int(key) >= len(items):
        allowed = f"0 to {len(items) - 1}" if items else "none, as it is empty"
        raise UserError(f"{source}: {'.'.join(reached)} is a list, {key!r} is not an index of it; allowed: {allowed}")
    return int(key)
