"""The column of numbers or tags that a user names for a method to read."""

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np

from deita_train.data.arrow_columns import arrow_column, numbers_in
from deita_train.errors import UserError
from deita_train.selection.repr_filter.unit_rows import name_rows

# Separates the tags of a row that are written as one text.
TAG_DELIMITER = ","
_BRACKETS = ("[", "(", "{")
_ONE_CONSTANT = re.compile(r"""None|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


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
    numbers = numbers_in(arrow_column(rows, column))
    return np.where(np.isfinite(numbers), numbers, np.nan)


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
    """The distinct tags of each of N rows, sorted, from a list of texts or from one text.

    A text is a list as JSON or Python writes it, or has commas between the tags. Tags are in lower case, their words
    one space apart; empty tags are ignored.

    Raises:
        UserError: the pool has no such column, it holds neither texts nor lists of them, or a text begins with a
            bracket and is no list of texts.
    """
    feature = _feature(rows, column)
    of_items = feature.feature if isinstance(feature, datasets.List) else feature
    if getattr(of_items, "dtype", None) not in ("string", "large_string", "null"):
        raise UserError(
            f"column '{column}' holds {_in_words(feature)}, and the method needs the tags of each row, as a list of "
            f"texts or as one text with '{TAG_DELIMITER}' between them."
        )
    found = [_tags(value) for value in rows[column]]
    wrong = np.array([place for place, tags in enumerate(found) if tags is None], dtype=np.int64)
    if len(wrong):
        raise UserError(
            f"column '{column}' holds text that begins with a bracket and cannot be read as a list of texts in "
            f"{len(wrong)} of {len(found)} rows: {name_rows(list(rows['id']), wrong)}. Write the tags as a list, "
            f'such as ["code", "python"], or with \'{TAG_DELIMITER}\' between them.'
        )
    return [tags for tags in found if tags is not None]


def _tags(value: Any) -> tuple[str, ...] | None:
    """The tags of a row; None for a text that begins with a bracket and is no list of texts."""
    parts = _parts_of_text(value) if isinstance(value, str) else value or []
    if parts is None:
        return None
    return tuple(sorted({_one_form(part) for part in parts if part is not None} - {""}))


def _one_form(tag: str) -> str:
    return " ".join(tag.casefold().split())


def _parts_of_text(text: str) -> list[Any] | None:
    if not text.lstrip().startswith(_BRACKETS):
        return text.split(TAG_DELIMITER)
    parts = _json_list(text)
    if parts is None:
        parts = _python_list(text)
    return parts if parts is not None and all(isinstance(part, str | None) for part in parts) else None


def _json_list(text: str) -> list[Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _python_list(text: str) -> list[Any] | None:
    """The constants of a list, tuple or set as Python writes it.

    Two texts side by side would be one constant: numpy writes its arrays without commas. They are not read.
    """
    try:
        value = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(value, ast.List | ast.Tuple | ast.Set):
        return None
    constants = [part for part in value.elts if isinstance(part, ast.Constant)]
    texts = [ast.get_source_segment(text.strip(), part) or "" for part in constants]
    is_plain = len(constants) == len(value.elts) and all(_ONE_CONSTANT.fullmatch(segment) for segment in texts)
    return [part.value for part in constants] if is_plain else None


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
