"""Short readable names for the cells of a sweep: `deita, budget 500, seed 2`."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from deita_train.budget import in_words, is_mapping_budget

# Dotted paths that take one value together.
Paths = tuple[str, ...]


def cell_labels(combinations: Sequence[Mapping[Paths, Any]]) -> list[str]:
    """Return a label for each combination of swept values, made of the last part of each path and its value.

    A `method` is named by its value alone. Paths with the same last part are named by as many parts as tell them apart.
    A mapping is named by its entries, except for a budget: `budget 2%`, `budget 5000000 tokens`.
    """
    entries = [[entry for paths, value in one.items() for entry in _entries(paths, value)] for one in combinations]
    swept = list(dict.fromkeys(paths for one in entries for paths, _ in one))
    names = {paths: _name(paths, [other for other in swept if other != paths]) for paths in swept}
    return [", ".join(_text(names[paths], value) for paths, value in one) for one in entries]


def _entries(paths: Paths, value: Any) -> Iterator[tuple[Paths, Any]]:
    """Yield the paths and values inside a swept value; the value itself unless it is a mapping."""
    if not isinstance(value, dict) or not value or is_mapping_budget(value):
        yield paths, value
        return
    for key, inner in value.items():
        yield from _entries(tuple(f"{path}.{key}" for path in paths), inner)


def _name(paths: Paths, others: Collection[Paths]) -> str:
    """Return in words the fewest last parts of the paths that no other path ends in; joined paths are named once."""
    longest = max(path.count(".") + 1 for path in paths)
    for length in range(1, longest + 1):
        ends = dict.fromkeys(_end(path, length) for path in paths)
        if not any(_end(path, length) in ends for other in others for path in other):
            break
    return " and ".join(end.replace(".", " ").replace("_", " ") for end in ends)


def _end(path: str, length: int) -> str:
    return ".".join(path.split(".")[-length:])


def _text(name: str, value: Any) -> str:
    return str(value) if name == "method" else f"{name} {_value_text(value)}"


def _value_text(value: Any) -> str:
    """Return a value as a recipe has it, on one line: true, null, 2e-5."""
    if is_mapping_budget(value):
        return in_words(value, separated=False)
    if isinstance(value, str):
        return " ".join(value.split()) or '""'
    if isinstance(value, float):
        return str(value).replace("e-0", "e-")
    return json.dumps(value, ensure_ascii=False)
