"""Checking a value from YAML against a type annotation of which only the source text is known."""

import ast
import math
from functools import cache
from typing import Any

from deita_train.recipe.wording import BOOLEAN, LIST, MAPPING, NULL, NUMBER, TEXT, WHOLE_NUMBER

_SCALARS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), BOOLEAN),
    "int": ((int,), WHOLE_NUMBER),
    "float": ((int, float), NUMBER),
    "str": ((str,), TEXT),
    "None": ((type(None),), NULL),
    "NoneType": ((type(None),), NULL),
}
_LISTS = frozenset({"list", "List", "tuple", "Tuple", "set", "Set", "Sequence", "Iterable", "Collection"})
_MAPPINGS = frozenset({"dict", "Dict", "Mapping", "MutableMapping"})


def accepts(annotation: str, value: Any) -> bool:
    """Return whether ``value``, as YAML gives it, fits ``annotation``, such as ``dict[str, Any] | None``.

    A whole number fits ``float``; a boolean fits neither ``int`` nor ``float``; a decimal number does not fit ``int``.
    A name that is not built in fits anything, except beside ``str`` in a union, where it is an enumeration whose
    members are written as text.
    """
    return any(_fits(value, member) for member in _members(annotation))


def wanted(annotation: str) -> tuple[str, ...]:
    """Return what ``annotation`` allows, in plain words, one entry for each member of a union."""
    words = [_words(member) for member in _members(annotation)]
    return tuple(dict.fromkeys(word for word in words if word))


def unknown_names(annotation: str) -> tuple[str, ...]:
    """Return the names at the top of ``annotation`` that are no built-in type (``SchedulerType | str``: that one)."""
    names = [_name(member) for member in _all_members(_parse(annotation)) if not isinstance(member, ast.Subscript)]
    return tuple(name for name in names if name and not _is_builtin(name))


def is_finite(value: Any) -> bool:
    """Return whether no number in ``value``, at any depth, is infinite or not a number."""
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@cache
def _parse(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


@cache
def _members(annotation: str) -> tuple[ast.expr, ...]:
    """Return the union's members; beside ``str`` those of an unknown name add nothing and are left out."""
    members = _all_members(_parse(annotation))
    if not any(_name(member) == "str" for member in members):
        return members
    return tuple(member for member in members if isinstance(member, ast.Subscript) or _is_builtin(_name(member)))


def _all_members(node: ast.expr) -> tuple[ast.expr, ...]:
    """Flatten ``X | Y``, ``Union``, ``Optional``, ``Annotated`` and quoted annotations."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _all_members(_parse(node.value))
    if isinstance(node, ast.BinOp):
        return _all_members(node.left) + _all_members(node.right)
    kind = _name(node) if isinstance(node, ast.Subscript) else ""
    if kind == "Optional":
        return (*_all_members(_arguments(node)[0]), ast.Constant(None))
    if kind == "Union":
        return tuple(member for argument in _arguments(node) for member in _all_members(argument))
    return _all_members(_arguments(node)[0]) if kind == "Annotated" else (node,)


def _arguments(node: ast.expr) -> list[ast.expr]:
    """Return what stands in the brackets of ``Name[...]``; nothing for a plain name."""
    if not isinstance(node, ast.Subscript):
        return []
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _name(node: ast.expr) -> str:
    """Return the last part of the type's name: ``typing.Dict[str, int]`` is ``Dict``."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant):
        return str(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def _is_builtin(name: str) -> bool:
    return name in _SCALARS or name in _LISTS or name in _MAPPINGS or name in {"Any", "Literal"}


def _fits(value: Any, node: ast.expr) -> bool:
    name, arguments = _name(node), _arguments(node)
    if name in _SCALARS:
        types, words = _SCALARS[name]
        return isinstance(value, types) and (words == BOOLEAN or not isinstance(value, bool))
    if name == "Literal":
        return any(type(value) is type(choice) and value == choice for choice in _literals(arguments))
    if name in _LISTS:
        return isinstance(value, list) and all(_fits_any(item, arguments[:1]) for item in value)
    if name in _MAPPINGS:
        return isinstance(value, dict) and all(_fits_any(item, arguments[1:]) for item in value.values())
    return True


def _fits_any(value: Any, arguments: list[ast.expr]) -> bool:
    """Return whether an element fits the bracketed type; without brackets everything does."""
    return not arguments or accepts(ast.unparse(arguments[0]), value)


def _literals(arguments: list[ast.expr]) -> list[Any]:
    return [argument.value for argument in arguments if isinstance(argument, ast.Constant)]


def _words(node: ast.expr) -> str:
    name, arguments = _name(node), _arguments(node)
    if name in _SCALARS:
        return _SCALARS[name][1]
    if name == "Literal":
        return ", ".join(str(choice).lower() if choice is False else repr(choice) for choice in _literals(arguments))
    if name in _LISTS:
        return LIST + _words_of_elements(arguments[:1])
    return MAPPING + _words_of_elements(arguments[1:]) if name in _MAPPINGS else ""


def _words_of_elements(arguments: list[ast.expr]) -> str:
    words = wanted(ast.unparse(arguments[0])) if arguments else ()
    return f" of {' / '.join(words)}" if words else ""
