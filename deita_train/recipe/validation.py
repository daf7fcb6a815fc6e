"""Turning pydantic's complaints about a recipe into lines that name the file, the line and the dotted key."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from deita_train.errors import UserError
from deita_train.recipe.overrides import override_path
from deita_train.recipe.wording import (
    BOOLEAN,
    LIST,
    MAPPING,
    NULL,
    NUMBER,
    TEXT,
    WHOLE_NUMBER,
    describe,
    nearest,
    not_allowed,
    wrong_value,
)
from deita_train.recipe.yaml_source import Positions

__all__ = ["explain", "nearest", "report_problems"]

KeyPath = tuple[str | int, ...]

_MAX_LINES = 20
_WANTED = {
    "bool_type": BOOLEAN,
    "bool_parsing": BOOLEAN,
    "int_type": WHOLE_NUMBER,
    "int_parsing": WHOLE_NUMBER,
    "int_from_float": WHOLE_NUMBER,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "a finite number",
    "string_type": TEXT,
    "path_type": TEXT,
    "list_type": LIST,
    "tuple_type": LIST,
    "set_type": LIST,
    "frozen_set_type": LIST,
    "dict_type": MAPPING,
    "mapping_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "none_required": NULL,
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text like {pattern}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
}
# A union's branch with such an error is of another shape than what the recipe holds there.
_OF_ANOTHER_SHAPE = frozenset({"missing", "extra_forbidden", "literal_error"})


class _Branch(NamedTuple):
    """One member of a union that pydantic tried: where the union stands in the error's location, and the member."""

    union: tuple[str | int, ...]
    label: str | int


class _Problem(NamedTuple):
    """One of pydantic's errors, with union labels taken out of its location."""

    path: KeyPath
    model: type[BaseModel] | None
    branches: tuple[_Branch, ...]
    error: Mapping[str, Any]

    @property
    def wanted(self) -> str | None:
        """What the error's type asks for, in plain words; None for a type without such words."""
        words = _WANTED.get(self.error["type"])
        return words.format(**self.error.get("ctx", {})) if words else None


def explain(
    error: ValidationError,
    *,
    model: type[BaseModel],
    path: Path | str,
    positions: Positions | None,
    sets: Sequence[str] = (),
) -> UserError:
    """Return the error to raise for a recipe that ``model`` refused, one line for each problem.

    Args:
        error: What ``model.model_validate`` raised.
        model: The recipe's model, whose fields give the nearest allowed key.
        path: The recipe's file, as the lines shall name it.
        positions: The line of each key of the file; None when there is no file.
        sets: The ``--set`` settings laid over the file; a value that one of them stated is reported under it.
    """
    problems = [_locate(model, one) for one in _flat(error)]
    texts = [_text(group) for group in _without_other_branches(problems)]
    return report_problems(texts, path=path, positions=positions, sets=sets)


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
    return f"--set {found}" if found else None


def _flat(error: ValidationError, prefix: tuple[str | int, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield the errors, with those of a model that a validator built itself in place of the validator's one."""
    for one in error.errors(include_url=False):
        location = (*prefix, *one["loc"])
        raised = one.get("ctx", {}).get("error")
        if isinstance(raised, ValidationError):
            yield from _flat(raised, location)
        else:
            yield {**one, "loc": location}


def _locate(model: type[BaseModel], error: Mapping[str, Any]) -> _Problem:
    """Walk the model's annotations along the error's location, and take out the labels of union members."""
    location: tuple[str | int, ...] = error["loc"]
    here: Any = model
    keys: list[str | int] = []
    branches: list[_Branch] = []
    holder: type[BaseModel] | None = None
    for index, element in enumerate(location):
        members = _members(here)
        if len(members) > 1:
            branches.append(_Branch(location[:index], element))
            here = next((member for member in members if _is_labelled(member, str(element))), None)
        elif element != "[key]":
            keys.append(element)
            holder, here = _step(members[0] if members else None, element)
    # An extra key's own error is located inside its mapping, so the holder is the last mapping walked into.
    return _Problem(tuple(keys), holder, tuple(branches), error)


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union without None; the annotation alone when it is no union."""
    bare = _bare(annotation)
    if get_origin(bare) not in (Union, UnionType):
        return [] if bare is None else [annotation]
    members = [member for member in get_args(bare) if member is not NoneType]
    return _members(members[0]) if len(members) == 1 else members


def _bare(annotation: Any) -> Any:
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_labelled(member: Any, label: str) -> bool:
    """Return whether pydantic's ``label`` names this union member: its class, its tag, or its container."""
    bare = _bare(member)
    tags = [mark.tag for mark in get_args(member)[1:] if isinstance(mark, Tag)] if bare is not member else []
    if label in tags:
        return True
    if _is_model(bare):
        return label == bare.__name__ or label.endswith(f", {bare.__name__}]") or label in _literal_tags(bare)
    origin = get_origin(bare)
    return isinstance(origin, type) and label.startswith(f"{origin.__name__}[")


def _literal_tags(model: type[BaseModel]) -> set[str]:
    """Return the values of the model's single-valued Literal fields: the possible tags of a discriminated union."""
    literals = (get_args(field.annotation) for field in model.model_fields.values() if _is_literal(field.annotation))
    return {str(values[0]) for values in literals if len(values) == 1}


def _is_literal(annotation: Any) -> bool:
    return get_origin(annotation) is Literal


def _step(annotation: Any, element: str | int) -> tuple[type[BaseModel] | None, Any]:
    """Return the model that holds the key ``element``, if any, and the annotation of what lies under the key."""
    bare = _bare(annotation)
    if _is_model(bare):
        fields = {field.alias or name: field for name, field in bare.model_fields.items()}
        field = fields.get(str(element)) or bare.model_fields.get(str(element))
        return bare, field.annotation if field else None
    arguments = [argument for argument in get_args(bare) if argument is not Ellipsis]
    return None, arguments[-1] if arguments and not _is_literal(bare) else None


def _without_other_branches(problems: list[_Problem]) -> list[list[_Problem]]:
    """Group the problems into lines: of each union only the branch that the recipe meant.

    When no branch has the value's shape, the union's errors make one line together. Outer unions are settled first.
    """
    unions = sorted({branch.union for problem in problems for branch in problem.branches}, key=lambda loc: len(loc))
    groups: list[list[_Problem]] = []
    for union in unions:
        inside = [problem for problem in problems if _label(problem, union) is not None]
        labels = list(dict.fromkeys(_label(problem, union) for problem in inside))
        best = min(labels, key=lambda label: _distance([one for one in inside if _label(one, union) == label], union))
        meant = [one for one in inside if _label(one, union) == best]
        if len(labels) > 1 and _is_of_another_kind(meant, union):
            groups.append([one for one in inside if _is_of_another_kind([one], union)])
            meant = []
        problems = [one for one in problems if one not in inside or one in meant]
    return groups + [[problem] for problem in problems]


def _label(problem: _Problem, union: tuple[str | int, ...]) -> str | int | None:
    return next((branch.label for branch in problem.branches if branch.union == union), None)


def _is_of_another_kind(problems: list[_Problem], union: tuple[str | int, ...]) -> bool:
    """Return whether the branch's error concerns the union's own value (text where a mapping is wanted)."""
    return any(len(problem.error["loc"]) == len(union) + 1 and problem.wanted is not None for problem in problems)


def _distance(problems: list[_Problem], union: tuple[str | int, ...]) -> tuple[bool, int, int]:
    """Return how far a branch is from what the recipe holds: another kind, then other keys, then other values."""
    shape = sum(problem.error["type"] in _OF_ANOTHER_SHAPE for problem in problems)
    return _is_of_another_kind(problems, union), shape, len(problems)


def _text(group: list[_Problem]) -> tuple[KeyPath, str]:
    """Return the key path and the sentence of one line."""
    first = group[0]
    if len(group) > 1:
        words = dict.fromkeys(problem.wanted for problem in group if problem.wanted)
        return first.path, wrong_value(first.error["input"], list(words))
    kind: str = first.error["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _text_for_tag(first)
    if first.wanted is not None:
        return first.path, wrong_value(first.error["input"], [first.wanted])
    return first.path, _SENTENCES.get(kind, _other)(first)


def _text_for_tag(problem: _Problem) -> tuple[KeyPath, str]:
    """Return path and sentence for a section whose kind (``method:``, for instance) is missing or unknown."""
    context = problem.error["ctx"]
    name = re.fullmatch(r"'(\w+)'", context["discriminator"])
    path = (*problem.path, name[1]) if name else problem.path
    if "tag" not in context:
        return path, "missing key"
    return path, not_allowed(context["tag"], _quoted(context["expected_tags"]))


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _unknown_key(problem: _Problem) -> str:
    allowed = _allowed_keys(problem.model) if problem.model else []
    near = nearest(str(problem.path[-1]), allowed)
    if near:
        return f"unknown key (did you mean {near}?)"
    return f"unknown key; allowed: {', '.join(allowed)}" if allowed else "unknown key"


def _allowed_keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _not_a_choice(problem: _Problem) -> str:
    value, expected = problem.error["input"], problem.error["ctx"]["expected"]
    return not_allowed(value, _quoted(expected)) if isinstance(value, str) else wrong_value(value, [expected])


def _raised(problem: _Problem) -> str:
    """Return the text of the exception that one of the model's own validators raised."""
    return str(problem.error["ctx"]["error"])


def _other(problem: _Problem) -> str:
    message: str = problem.error["msg"]
    return f"{describe(problem.error['input'])}; {message[:1].lower()}{message[1:]}"


_SENTENCES: dict[str, Callable[[_Problem], str]] = {
    "missing": lambda problem: "missing key",
    "extra_forbidden": _unknown_key,
    "literal_error": _not_a_choice,
    "enum": _not_a_choice,
    "value_error": _raised,
    "assertion_error": _raised,
}
