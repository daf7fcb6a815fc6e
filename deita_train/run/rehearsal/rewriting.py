"""A recipe's plain data being rewritten, and the account of what was replaced."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.recipe.sweep import OPTIONS

NOTHING = object()
"""What a path holds that the recipe does not have."""


@dataclass(frozen=True)
class Replacement:
    """One value of a recipe that a rehearsal replaces.

    Attributes:
        path: where it stands, dotted.
        real: what the real run has, in words.
        stand_in: what the rehearsal has, in words; empty where it is left out.
        reason: why.
    """

    path: str
    real: str
    stand_in: str
    reason: str


def _unshared(value: Any) -> Any:
    """A copy in which nothing stands twice: two sections may share one mapping, which YAML's aliases give them."""
    if isinstance(value, dict):
        return {name: _unshared(inner) for name, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else copy.copy(value)


class Rewriter:
    """A copy of a recipe's data, without its sweep, in which values are replaced one by one."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data: dict[str, Any] = {name: _unshared(value) for name, value in data.items() if name != "sweep"}
        self.replacements: list[Replacement] = []

    def at(self, path: str, default: Any = None) -> Any:
        """The value at a dotted path."""
        here: Any = self.data
        for key in path.split("."):
            if isinstance(here, dict) and key in here:
                here = here[key]
            elif isinstance(here, list) and key.isdigit() and int(key) < len(here):
                here = here[int(key)]
            else:
                return default
        return here

    def has(self, path: str) -> bool:
        """Whether the recipe states a value there, other than null."""
        return self.at(path) is not None

    def put(self, path: str, value: Any, reason: str, *, default: Any = NOTHING, words: str | None = None) -> None:
        """Replace the value at a path, in a section that is there.

        Args:
            path: of the value.
            value: in its place.
            reason: why.
            default: what holds in a recipe that does not state it.
            words: what the account says in place of the value.
        """
        before = self.at(path, NOTHING)
        effective = default if before is NOTHING or before is None else before
        if effective == value and type(effective) is type(value):
            return
        section, _, name = path.rpartition(".")
        container: Any = self.at(section) if section else self.data
        assert isinstance(container, dict), f"{path}: no section to write to"
        container[name] = value
        self._note(path, before, default, value if words is None else words, reason)

    def drop(self, path: str, reason: str, words: str = "") -> None:
        """Leave a stated value out; `words` is what holds then."""
        before = self.at(path, NOTHING)
        if before is NOTHING or before is None:
            return
        section, _, name = path.rpartition(".")
        del (self.at(section) if section else self.data)[name]
        self._note(path, before, NOTHING, words, reason)

    def _note(self, path: str, before: Any, default: Any, now: Any, reason: str) -> None:
        stated = before is not NOTHING and before is not None
        real = in_words(before) if stated else ("" if default is NOTHING else f"{in_words(default)} by default")
        self.replacements.append(Replacement(path, real, in_words(now), reason))


def in_words(value: Any) -> str:
    """A value of a recipe in one line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {in_words(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(in_words, value)) + "]"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def axes_of(data: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The swept paths, as the recipe writes them, and their values."""
    sweep = data.get("sweep") or {}
    return {key: values for key, values in sweep.items() if key not in OPTIONS}


def paths_of(axis: str) -> list[str]:
    """The paths that take a value of an axis together."""
    return [path.strip() for path in axis.split(",")]


def variants(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipe without its sweep, and with each swept value alone."""
    plain = {name: value for name, value in data.items() if name != "sweep"}
    return [plain, *(varied(plain, axis, value) for axis, values in axes_of(data).items() for value in values)]


def varied(plain: Mapping[str, Any], axis: str, value: Any) -> dict[str, Any]:
    """A recipe with one value of a sweep's axis."""
    data = copy.deepcopy(dict(plain))
    for path in paths_of(axis):
        place = data
        *sections, name = path.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = copy.deepcopy(value)
    return data


def rewritten(
    data: Mapping[str, Any], rule: Callable[[Rewriter], None], *, few: bool
) -> tuple[dict[str, Any], list[Replacement]]:
    """Apply a rule to a recipe and to every value of its sweep.

    Args:
        data: the recipe.
        rule: rewrites a recipe without a sweep.
        few: whether the sweep is made small as well (`_fewer`).
    """
    base = Rewriter(data)
    rule(base)
    result, replacements = base.data, base.replacements
    if data.get("sweep") is None:
        return result, replacements
    options = {name: data["sweep"][name] for name in OPTIONS if name in data["sweep"]}
    axes: dict[str, list[Any]] = {}
    for axis, values in axes_of(data).items():
        kept = [found for value in values if (found := _swept(data, axis, value, rule)) is not NOTHING]
        distinct = [value for place, value in enumerate(kept) if value not in kept[:place]]
        axes[axis] = distinct if not few else _fewer(distinct)
        if axes[axis] != values:
            reason = "of swept numbers the first is tried, of swept words all are" if few else "stand-ins"
            replacements.append(Replacement(f"sweep.{axis}", in_words(values), in_words(axes[axis]), reason))
    axes = {axis: values for axis, values in axes.items() if values}
    if few:
        options |= _end_of_cells(axes, options, replacements)
    sweep = {**axes, **options}
    if axes or options.get("whole_pool"):
        result["sweep"] = sweep
    return result, replacements


def _swept(data: Mapping[str, Any], axis: str, value: Any, rule: Callable[[Rewriter], None]) -> Any:
    """What a swept value becomes; nothing where the rule leaves its field out."""
    plain = {name: section for name, section in data.items() if name != "sweep"}
    variant = Rewriter(varied(plain, axis, value))
    rule(variant)
    return variant.at(paths_of(axis)[0], NOTHING)


def _fewer(values: list[Any]) -> list[Any]:
    """Of numbers and budgets the first, of anything else all."""
    return values[:1] if all(map(_is_amount, values)) else values


def _is_amount(value: Any) -> bool:
    """Whether a swept value is a number, or a budget of a share or of tokens."""
    if isinstance(value, dict):
        return set(value) <= {"share", "tokens"}
    return isinstance(value, int | float) and not isinstance(value, bool)


# More cells than this end with their selection, where nothing but the selection is swept.
_MOST_TRAINED = 4


def _end_of_cells(axes: Mapping[str, list[Any]], options: Mapping[str, Any], told: list[Replacement]) -> dict[str, str]:
    """The stage after which a sweep over many selections ends: their trainings differ in their rows alone."""
    number = 1
    for values in axes.values():
        number *= len(values)
    of_selection = all(path.startswith("select.") or path.endswith(".seed") for axis in axes for path in paths_of(axis))
    if number <= _MOST_TRAINED or not of_selection or "until" in options:
        return {}
    reason = "trainings on other rows are the same trainings; the base run has one"
    told.append(Replacement("sweep.until", "nothing", "select", reason))
    return {"until": "select"}
