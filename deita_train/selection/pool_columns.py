"""The column of numbers or tags that a user names for a method to read."""

import math
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np

from deita_train.errors import UserError

# Separates the tags of a row that are written as one text.
TAG_DELIMITER = ","


def number_column(rows: datasets.Dataset, column: str) -> np.ndarray:
    """The numbers of `column`: `[N]` float64, nan where the row has null, nan or infinity.

    A name with points, such as `raw_scores.IFD`, is of a value inside a column of objects, unless a column has it.

    Raises:
        UserError: the pool has no such column, or it does not hold numbers.
    """
    outer, _, path = column.partition(".")
    if column not in rows.column_names and path and outer in rows.column_names:
        return _inner_numbers(rows, column)
    feature = _feature(rows, column)
    kind = str(getattr(feature, "dtype", "list"))
    if not kind.startswith(("int", "uint", "float", "null")):
        raise UserError(
            f"column '{column}' holds {_in_words(feature)}, and the method needs a number in each row. Convert it, or "
            "name another column."
        )
    values = [value if value is not None and math.isfinite(value) else math.nan for value in rows[column]]
    return np.array(values, dtype=np.float64)


def _inner_numbers(rows: datasets.Dataset, column: str) -> np.ndarray:
    """The numbers inside a column of objects; nan where the row has no such entry, or null, nan or infinity.

    Raises:
        UserError: no row has the entry, or one has something else than a number there.
    """
    outer, *path = column.split(".")
    numbers, is_there = np.full(len(rows), np.nan), False
    for place, (row_id, value) in enumerate(zip(rows["id"], rows[outer], strict=True)):
        for name in path:
            is_there = is_there or (isinstance(value, Mapping) and name in value)
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise UserError(
                f"column '{column}' holds something else than a number in row {row_id!r}. Convert it, or name another."
            )
        if value is not None and math.isfinite(value):
            numbers[place] = value
    if not is_there:
        raise UserError(f"no row of the pool has '{'.'.join(path)}' in its column '{outer}'. Correct the name.")
    return numbers


def tag_column(rows: datasets.Dataset, column: str) -> list[tuple[str, ...]]:
    """The distinct tags of each of N rows, sorted, from a list of texts or one text with commas between the tags.

    White space around a tag and empty tags are ignored.

    Raises:
        UserError: the pool has no such column, or it holds neither texts nor lists of them.
    """
    feature = _feature(rows, column)
    of_items = feature.feature if isinstance(feature, datasets.List) else feature
    if getattr(of_items, "dtype", None) not in ("string", "large_string", "null"):
        raise UserError(
            f"column '{column}' holds {_in_words(feature)}, and the method needs the tags of each row, as a list of "
            f"texts or as one text with '{TAG_DELIMITER}' between them."
        )
    return [_tags(value) for value in rows[column]]


def _tags(value: Any) -> tuple[str, ...]:
    parts = value.split(TAG_DELIMITER) if isinstance(value, str) else value or []
    return tuple(sorted({part.strip() for part in parts if part is not None} - {""}))


def _feature(rows: datasets.Dataset, column: str) -> Any:
    if column not in rows.column_names:
        raise UserError(
            f"the pool has no column '{column}' for the method to read; it has {', '.join(rows.column_names)}. A "
            "column of the data comes into the pool unless the pipeline writes one of that name, or it holds bytes."
        )
    return rows.features[column]


def _in_words(feature: Any) -> str:
    if isinstance(feature, datasets.Json):
        return "values of several types, numbers beyond 64 bits, lists or objects (kept as JSON; validate says which)"
    if isinstance(feature, datasets.List):
        return f"lists of {_in_words(feature.feature)}"
    kinds = {"string": "text", "large_string": "text", "bool": "yes/no values"}
    dtype = getattr(feature, "dtype", None)
    return kinds.get(dtype, "numbers") if isinstance(dtype, str) else "structured values"
