"""The fields of a configuration class of an installed library, and the check of a recipe's values against them.

The fields are read from the installed source with ``ast``. Importing trl or peft also imports torch and transformers
and takes seconds, while ``plan`` and ``validate`` must answer at once; a table kept here would go stale with the next
release. Building the configuration would not check it either: SFTConfig raises on a machine without a GPU, and all of
them accept the text "no" for a boolean.
"""

import ast
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deita_train.errors import UserError
from deita_train.recipe.annotations import accepts, is_finite, unknown_names, wanted
from deita_train.recipe.wording import TEXT, describe, nearest, not_allowed, wrong_value


@dataclass(frozen=True)
class NotLiteral:
    """A default that the library computes when it is imported; only its source text is known."""

    source: str


@dataclass(frozen=True)
class ConfigField:
    """One field of a configuration class.

    Attributes:
        name: The field.
        annotation: Its type, as source text.
        default: A value, or a :class:`NotLiteral`.
        choices: The only texts that are allowed; empty when any text is.
        init: Whether the class takes the field; false for one that it computes.
    """

    name: str
    annotation: str
    default: Any
    choices: tuple[str, ...] = ()
    init: bool = True


def config_title(package: str, name: str) -> str:
    """Return the name of a class in messages, with the installed version: ``SFTConfig of trl 1.16.0``."""
    return f"{name} of {package} {version(package)}"


@cache
def read_config(package: str, name: str) -> Mapping[str, ConfigField]:
    """Return the installed fields of a package's configuration class by name, inherited ones first.

    Raises:
        UserError: The package is not installed, or its source has no such class.
    """
    found = _find_class(package, name)
    if found is None:
        raise UserError(f"{package}'s {name} is not found; install deita-train's dependencies again")
    return MappingProxyType(_class_fields(*found))


def value_problem(field: ConfigField, value: Any) -> str | None:
    """Return what is wrong with a field's value, as YAML gives it; None when it fits."""
    if not field.init:
        return "cannot be set: the configuration computes it"
    if not is_finite(value):
        return f"{describe(value)}; expected finite numbers"
    if isinstance(value, str) and field.choices:
        return None if value in field.choices else not_allowed(value, field.choices)
    if not accepts(field.annotation, value):
        return wrong_value(value, field.choices or wanted(field.annotation))
    return None


def unknown_field(name: str, title: str, allowed: Collection[str]) -> str:
    """Return the message for an unknown field, with the nearest one that is ``allowed``."""
    near = nearest(name, allowed)
    return f"unknown field of {title}" + (f" (did you mean {near}?)" if near else "")


def _class_fields(module: str, definition: ast.ClassDef) -> dict[str, ConfigField]:
    """Return the dataclass fields of a class and of its bases; a later definition replaces an earlier one in place."""
    fields: dict[str, ConfigField] = {}
    for base in reversed(definition.bases):
        found = _find_class(module, ast.unparse(base))
        fields |= _class_fields(*found) if found else {}
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation = ast.unparse(statement.annotation)
            if "ClassVar" not in annotation:
                name = statement.target.id
                fields[name] = _field(module, name, annotation, statement.value)
    return fields


def _field(module: str, name: str, annotation: str, value: ast.expr | None) -> ConfigField:
    """Read ``name: annotation = value``, where the value may be a call of ``dataclasses.field``."""
    if not isinstance(value, ast.Call):
        return ConfigField(name, annotation, _literal(value), _enumeration(module, annotation))
    options = {keyword.arg: keyword.value for keyword in value.keywords}
    factory = options.get("default_factory")
    default = _literal(options.get("default")) if factory is None else _made_by(factory)
    choices = _stated_choices(options) or _enumeration(module, annotation)
    return ConfigField(name, annotation, default, choices, _literal(options.get("init")) is not False)


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return NotLiteral("")
    try:
        return ast.literal_eval(node)
    except ValueError:
        return NotLiteral(ast.unparse(node))


def _made_by(factory: ast.expr) -> Any:
    """Return the value of a ``default_factory``, where its source shows it."""
    if isinstance(factory, ast.Lambda):
        return _literal(factory.body)
    empty: dict[str, Any] = {"list": [], "dict": {}}
    source = ast.unparse(factory)
    return empty.get(source, NotLiteral(f"{source}()"))


def _stated_choices(options: Mapping[str | None, ast.expr]) -> tuple[str, ...]:
    """Return the ``choices`` in a field's metadata, where they are literal."""
    metadata = options.get("metadata")
    if not isinstance(metadata, ast.Dict):
        return ()
    values = {ast.unparse(key): value for key, value in zip(metadata.keys, metadata.values, strict=True) if key}
    choices = _literal(values.get("'choices'"))
    return tuple(choices) if isinstance(choices, list) else ()


def _enumeration(module: str, annotation: str) -> tuple[str, ...]:
    """Return the member values of the enumeration in ``Enumeration | str``; empty for every other annotation."""
    names = unknown_names(annotation)
    if not names or TEXT not in wanted(annotation):
        return ()
    found = _find_class(module, names[0])
    if found is None or not any(ast.unparse(base).endswith("Enum") for base in found[1].bases):
        return ()
    members = (_literal(line.value) for line in found[1].body if isinstance(line, ast.Assign))
    return tuple(member for member in members if isinstance(member, str))


def _find_class(module: str, name: str, seen: frozenset[str] = frozenset()) -> tuple[str, ast.ClassDef] | None:
    """Return the module that defines the class which ``module`` knows as ``name``, with its definition.

    Follows ``from x import y``, also under ``if TYPE_CHECKING:`` where lazy packages list their contents.
    """
    source = _parse(module)
    if source is None or module in seen:
        return None
    classes, imports = source
    if name in classes:
        return module, classes[name]
    return _find_class(*imports[name], seen | {module}) if name in imports else None


@cache
def _parse(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, tuple[str, str]]] | None:
    """Return the classes of an installed module, and what it imports by name: bound name to (module, name there)."""
    path = _source_file(module)
    if path is None:
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return classes, dict(_imports(tree.body, package))


def _imports(body: list[ast.stmt], package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the ``from`` imports of a module, those under ``if``, ``else`` and ``try`` included."""
    for node in body:
        if isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((alias.asname or alias.name, (source, alias.name)) for alias in node.names)
        elif isinstance(node, ast.If | ast.Try):
            yield from _imports([*node.body, *node.orelse], package)


def _source_file(module: str) -> Path | None:
    """Return the source file of an installed module. Only its top package is looked up, and nothing is executed."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)
