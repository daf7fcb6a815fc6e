"""Values from YAML checked against type annotations that are known as source text alone.

The text becomes a type of built-in and typing names; nothing of the library it comes from is executed.
"""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Optional, TypeVar, Union, get_args, get_origin

from deita_train.recipe.wording import BOOLEAN, LIST, MAPPING, NULL, NUMBER, TEXT, WHOLE_NUMBER

_WORDS: Mapping[Any, str] = {
    **{bool: BOOLEAN, int: WHOLE_NUMBER, float: NUMBER, str: TEXT, NoneType: NULL},
    **{list: LIST, dict: MAPPING},
}
_JSON_TYPES: Mapping[Any, str] = {
    **{bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"},
    **{list: "array", dict: "object"},
}
_NULL_TYPE = '{"type": "null"}'
_TYPES: Mapping[str, Any] = {
    **{known.__name__: known for known in (bool, int, float, str, NoneType)},
    **dict.fromkeys(("list", "List", "tuple", "Tuple", "set", "Set", "Sequence", "Iterable", "Collection"), list),
    **dict.fromkeys(("dict", "Dict", "Mapping", "MutableMapping"), dict),
    **{"Any": Any, "Annotated": Annotated, "Literal": Literal, "Optional": Optional, "Union": Union},
}


def accepts(annotation: str, value: Any) -> bool:
    """Return whether a value, as YAML gives it, fits an annotation such as ``dict[str, Any] | None``.

    A whole number fits ``float``; a boolean fits neither ``int`` nor ``float``; a decimal number does not fit ``int``.
    A class of the library fits anything, except beside ``str`` in a union, where it is an enumeration whose members
    are written as text.
    """
    return any(_fits(value, member) for member in _meant(_parse(annotation)))


def wanted(annotation: str) -> tuple[str, ...]:
    """Return what an annotation allows, in plain words, one entry for each member of a union."""
    return _all_words(_parse(annotation))


def as_json_schema(annotation: str) -> dict[str, Any]:
    """Return the JSON Schema of the values that `accepts` takes; empty where it takes anything."""
    return _schema(_parse(annotation))


def unknown_names(annotation: str) -> tuple[str, ...]:
    """Return the library's own classes at the top of an annotation (``SchedulerType | str``: that one)."""
    return tuple(member.__name__ for member in _members(_parse(annotation)) if isinstance(member, TypeVar))


def is_finite(value: Any) -> bool:
    """Return whether no number in ``value``, at any depth, is infinite or not a number."""
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@cache
def _parse(annotation: str) -> Any:
    return _type(ast.parse(annotation, mode="eval").body)


def _type(node: ast.expr) -> Any:
    """Return the type that an annotation names: every sequence a list, a class of the library a type variable."""
    match node:
        case ast.Constant(value=str(quoted)):
            return _parse(quoted)
        case ast.Constant(value=value):
            return value
        case ast.BinOp(left=left, right=right):
            return _type(left) | _type(right)
        case ast.Subscript(value=generic, slice=inner):
            return _subscript(_type(generic), inner.elts if isinstance(inner, ast.Tuple) else [inner])
    name = node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
    return _TYPES[name] if name in _TYPES else TypeVar(name)


def _subscript(generic: Any, arguments: Sequence[ast.expr]) -> Any:
    if isinstance(generic, TypeVar):
        return generic
    if generic is Literal:
        return Literal[tuple(argument.value for argument in arguments if isinstance(argument, ast.Constant))]
    if generic in (Union, dict):
        return generic[tuple(map(_type, arguments))]
    return _type(arguments[0]) if generic is Annotated else generic[_type(arguments[0])]


def _members(type_: Any) -> tuple[Any, ...]:
    return get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)


def _meant(type_: Any) -> tuple[Any, ...]:
    """Return the members of a union that say something: a class of the library says nothing beside ``str``."""
    members = _members(type_)
    return tuple(member for member in members if not isinstance(member, TypeVar)) if str in members else members


def _fits(value: Any, type_: Any) -> bool:
    container, arguments = get_origin(type_) or type_, get_args(type_)
    if container is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if container in (list, dict):
        items = value.values() if isinstance(value, dict) else value
        element = _meant(arguments[-1]) if arguments else (Any,)
        return isinstance(value, container) and all(any(_fits(item, one) for one in element) for item in items)
    return container not in _WORDS or type(value) in ((int, float) if container is float else (container,))


def _all_words(type_: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(_words, _meant(type_)))))


def _words(type_: Any) -> str:
    container, arguments = get_origin(type_) or type_, get_args(type_)
    if container is Literal:
        return ", ".join(str(choice).lower() if choice is False else repr(choice) for choice in arguments)
    elements = " / ".join(_all_words(arguments[-1])) if arguments else ""
    return _WORDS.get(container, "") + (f" of {elements}" if elements else "")


def _schema(type_: Any) -> dict[str, Any]:
    # In an order of their own, because typing may give an equal union of another order.
    by_text = {json.dumps(member): member for member in map(_member_schema, _meant(type_))}
    members = [by_text[text] for text in sorted(by_text, key=lambda text: (text == _NULL_TYPE, text))]
    if {} in members:
        return {}
    return members[0] if len(members) == 1 else {"anyOf": members}


def _member_schema(type_: Any) -> dict[str, Any]:
    container, arguments = get_origin(type_) or type_, get_args(type_)
    if container is Literal:
        return {"enum": list(arguments)}
    if container not in _JSON_TYPES:
        return {}
    element = _schema(arguments[-1]) if arguments else {}
    inside = {list: "items", dict: "additionalProperties"}.get(container)
    return {"type": _JSON_TYPES[container], **({inside: element} if inside and element else {})}
