"""Turning pydantic's complaints about a recipe into lines that name the file, the line and the dotted key."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deita_train.errors import UserError
from deita_train.recipe.overrides import override_path
from deita_train.recipe.trainer_fields import refused_fields, trainer_fields
from deita_train.recipe.wording import (
    BOOLEAN,
    LIST,
    MAPPING,
    NUMBER,
    TEXT,
    WHOLE_NUMBER,
    describe,
    name_here,
    nearest,
    not_allowed,
    wrong_value,
)
from deita_train.recipe.yaml_source import Positions

KeyPath = tuple[str | int, ...]

_MAX_LINES = 20
# What pydantic wanted, by the type of its error; the sections are strict, so that nothing is parsed from text.
_WANTED = {
    "bool_type": BOOLEAN,
    "int_type": WHOLE_NUMBER,
    "float_type": NUMBER,
    "finite_number": "a finite number",
    "string_type": TEXT,
    "list_type": LIST,
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text like {pattern}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
}


def explain(
    error: ValidationError,
    *,
    model: type[BaseModel],
    data: Mapping[str, Any],
    path: Path | str,
    positions: Positions | None,
    sets: Sequence[str] = (),
) -> UserError:
    """Return the error to raise for a recipe that ``model`` refused, one line for each problem.

    Args:
        error: What ``model.model_validate(data)`` raised.
        model: The recipe's model, whose fields give the nearest allowed key.
        data: The recipe.
        path: The recipe's file, as the lines shall name it.
        positions: The line of each key of the file; None when there is no file.
        sets: The ``--set`` settings laid over the file; a value that one of them stated is reported under it.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(_key_path(details, data), []).append(details)
    problems = [(keys, _text(keys, by_path[keys], model)) for keys in by_path if not _is_wrong_inside(keys, by_path)]
    return report_problems(problems, path=path, positions=positions, sets=sets)


def report_problems(
    problems: Iterable[tuple[Sequence[str | int], str]],
    *,
    path: Path | str,
    positions: Positions | None,
    sets: Sequence[str] = (),
) -> UserError:
    """Return one error for all ``problems`` (key path, text) in the order of the file's lines, at most 20 of them.

    A line reads ``<file>:<line>: <dotted key>: <text>``, or ``--set <setting>: ...`` for a value of the command line.
    """
    stated = {override_path(setting): setting for setting in sets}
    lines: list[tuple[int, str]] = []
    for keys, text in problems:
        number = positions.line(keys) if positions else None
        source = _stated_by(keys, stated) or (f"{path}:{number}" if number else f"{path}")
        lines.append((number or 0, ": ".join(filter(None, [source, ".".join(map(str, keys)), text]))))
    texts = [text for _, text in sorted(lines, key=lambda line: line[0])]
    more = len(texts) - _MAX_LINES
    return UserError("\n".join(texts[:_MAX_LINES] + ([f"and {more} more"] if more > 0 else [])))


def _stated_by(keys: Sequence[str | int], stated: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the ``--set`` that wrote the value at ``keys`` or a value around it."""
    elements = tuple(map(str, keys))
    found = next((stated[elements[:n]] for n in range(len(elements), 0, -1) if elements[:n] in stated), None)
    if found is None:
        return None
    # What is wrong under `llm:` may hold a key.
    return f"--set {found.partition('=')[0]}=..." if elements[0] == "llm" else f"--set {found}"


def _key_path(details: ErrorDetails, data: Mapping[str, Any]) -> KeyPath:
    """Return an error's location without what is no key of the recipe: a union's member, or ``[key]``."""
    keys: list[str | int] = []
    here: Any = data
    for element in details["loc"]:
        if isinstance(element, int) if isinstance(here, list) else isinstance(here, dict) and element in here:
            keys.append(element)
            here = here[element]
    return (*keys, details["loc"][-1]) if details["type"] == "missing" else tuple(keys)


def _is_wrong_inside(keys: KeyPath, all_keys: Iterable[KeyPath]) -> bool:
    """Return whether something inside the value at ``keys`` is wrong too.

    Then the value is a mapping that a union (``select.budget``: a number or a section) has tried as a number as well.
    """
    return any(len(other) > len(keys) and other[: len(keys)] == keys for other in all_keys)


def _text(keys: KeyPath, errors: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    """Say what is wrong with one value. A union gives an error for each of its members."""
    wanted = [_WANTED[error["type"]].format(**error.get("ctx", {})) for error in errors if error["type"] in _WANTED]
    value = errors[0]["input"]
    if len(wanted) == len(errors):
        return wrong_value(value, list(dict.fromkeys(wanted)))
    told = [error for error in errors if error["type"] not in _WANTED]
    # A section's own refusal says more than that a mapping is none of the words beside it.
    error = next((error for error in told if error["type"] == "value_error"), told[0])
    match error["type"]:
        case "missing":
            return "missing key"
        case "extra_forbidden":
            return _unknown_key(keys, _allowed_keys(keys[:-1], model))
        case "literal_error":
            expected = error["ctx"]["expected"]
            choices = re.findall(r"'([^']*)'", expected)
            return not_allowed(value, choices) if isinstance(value, str) else wrong_value(value, [expected])
        case "value_error":
            return str(error["ctx"]["error"])  # what a section's own validator raised
    return f"{describe(value)}; {error['msg']}"


def _unknown_key(keys: KeyPath, allowed: Sequence[str]) -> str:
    key = str(keys[-1])
    near = _trainer_field(keys) if "trainer" in allowed else None
    near = near or nearest(key, allowed)
    return f"unknown key (did you mean {near}?)" if near else f"unknown key; allowed: {', '.join(allowed)}"


def _trainer_field(keys: KeyPath) -> str | None:
    """Return the field of a section's `trainer:` that a key beside it means, as ``trainer.learning_rate``."""
    section, name = ".".join(map(str, keys[:-1])), str(keys[-1])
    fields = trainer_fields("dpo" if section == "dpo" else "sft").keys() - refused_fields(section).keys()
    field = next((field for field in (name, name_here(name)) if field in fields), None)
    return None if field is None else f"trainer.{field}"


def _allowed_keys(keys: KeyPath, model: type[BaseModel]) -> list[str]:
    """Return the fields of the section at ``keys``; in a mapping of sections (``llm``), a key is the name of one."""
    is_own_name = False
    for key in keys:
        if isinstance(key, str) and not is_own_name:
            annotation = model.model_fields[key].annotation
            section = _section(annotation)
            assert section is not None, keys
            model = section
            is_own_name = any(get_origin(member) is dict for member in get_args(annotation))
        else:
            is_own_name = False
    return list(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the one section in a field's annotation: ``Source`` in ``list[Source] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)
