"""What tells the cells of a sweep apart, and which of them are one measurement with several seeds."""

from collections.abc import Iterator, Mapping
from typing import Any

from deita_train.budget import is_mapping_budget


def is_seed(path: str) -> bool:
    """Whether a dotted path names a seed."""
    return path.endswith("seed")


def treatment_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The swept settings of a cell by dotted path, without its seeds."""
    return {path: value for path, value in _flat(settings) if not is_seed(path)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths with their values; a mapping, unless it is a budget, gives a path for each of its entries."""
    for name, value in settings.items():
        if isinstance(value, dict) and value and not is_mapping_budget(value):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
