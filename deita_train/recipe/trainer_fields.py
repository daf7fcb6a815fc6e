"""The fields of trl's SFTConfig and DPOConfig as installed, and the check of a recipe's ``trainer:`` against them.

The fields are read from the installed source with ``ast``. Importing trl executes torch and transformers and takes
seconds, while ``plan`` and ``validate`` must answer at once; a table written down here would go stale with the next
release of trl. Building the configuration itself is no check either: it raises on a machine without a GPU, and it
accepts the text "no" for a boolean.
"""

import ast
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from deita_train.errors import UserError
from deita_train.recipe.annotations import accepts, is_finite, unknown_names, wanted
from deita_train.recipe.wording import TEXT, describe, nearest, not_allowed, wrong_value

TrainerKind = Literal["sft", "dpo"]

_CONFIG_CLASS: dict[TrainerKind, str] = {"sft": "SFTConfig", "dpo": "DPOConfig"}
# Fields that published recipes still carry, and what became of each.
GONE = MappingProxyType(
    {
        "warmup_ratio": "write warmup_steps, which takes a ratio below 1",
        "max_seq_length": "write max_length",
        "max_prompt_length": "max_length bounds prompt and answer together",
        "max_completion_length": "max_length bounds prompt and answer together",
        "torch_dtype": "it is called dtype and belongs to the model, not to the trainer",
        "group_by_length": "write train_sampling_strategy: group_by_length",
        "evaluation_strategy": "write eval_strategy",
        "no_cuda": "write use_cpu",
        "push_to_hub_token": "write hub_token",
        "push_to_hub_model_id": "write hub_model_id",
        "per_gpu_train_batch_size": "write per_device_train_batch_size",
        "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
        "adafactor": "write optim: adafactor",
        "include_inputs_for_metrics": "write include_for_metrics: [inputs]",
        "overwrite_output_dir": "leave it out",
    }
)


@dataclass(frozen=True)
class NotLiteral:
    """A default that is computed when trl is imported; only its source text is known."""

    source: str


@dataclass(frozen=True)
class TrainerField:
    """One field of a trainer's configuration class.

    ``annotation`` is source text; ``default`` is a value or a :class:`NotLiteral`; ``choices`` are the only texts
    allowed, empty when any is.
    """

    name: str
    annotation: str
    default: Any
    choices: tuple[str, ...] = ()


@cache
def trainer_fields(kind: TrainerKind) -> Mapping[str, TrainerField]:
    """Return the installed fields of SFTConfig (``sft``) or DPOConfig (``dpo``) by name, inherited ones first.

    Raises:
        UserError: trl is not installed, or its source has no such class.
    """
    found = _find_class("trl", _CONFIG_CLASS[kind])
    if found is None:
        raise UserError(f"trl's {_CONFIG_CLASS[kind]} is not found; install deita-train's dependencies again")
    return MappingProxyType(_class_fields(*found))


def check_trainer(kind: TrainerKind, values: Mapping[str, Any], *, where: str, owned: Mapping[str, str]) -> list[str]:
    """Check a ``trainer:`` mapping against the installed fields.

    Args:
        kind: Which trainer the values are for.
        values: Field names and values as YAML gives them.
        where: The mapping's dotted recipe path, such as ``sft.trainer``.
        owned: Fields that the framework sets, each with the sentence that says what states it instead.

    Returns:
        One text for each problem, ``<where>.<field>: <problem>``, in the order of ``values``; empty when all is well.
    """
    fields = trainer_fields(kind)
    problems = ((name, _problem(kind, fields, name, value, owned)) for name, value in values.items())
    return [f"{where}.{name}: {problem}" for name, problem in problems if problem]


def _problem(
    kind: TrainerKind, fields: Mapping[str, TrainerField], name: str, value: Any, owned: Mapping[str, str]
) -> str | None:
    if name in owned:
        return f"set by the framework: {owned[name]}"
    if name not in fields:
        return _unknown(kind, name, fields.keys() - owned.keys())
    field = fields[name]
    if not is_finite(value):
        return f"{describe(value)}; finite numbers wanted"
    if isinstance(value, str) and field.choices:
        return None if value in field.choices else not_allowed(value, field.choices)
    if not accepts(field.annotation, value):
        return wrong_value(value, field.choices or wanted(field.annotation))
    return None


def _unknown(kind: TrainerKind, name: str, allowed: Collection[str]) -> str:
    config = f"{_CONFIG_CLASS[kind]} of trl {version('trl')}"
    if name in GONE:
        return f"gone from {config}: {GONE[name]}"
    other: TrainerKind = "dpo" if kind == "sft" else "sft"
    if name in trainer_fields(other):
        return f"no field of {config}, only of {_CONFIG_CLASS[other]}"
    near = nearest(name, allowed)
    return f"unknown field of {config}" + (f" (did you mean {near}?)" if near else "")


def _class_fields(module: str, definition: ast.ClassDef) -> dict[str, TrainerField]:
    """Return the dataclass fields of a class and of its bases; a later definition replaces an earlier one in place."""
    fields: dict[str, TrainerField] = {}
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


def _field(module: str, name: str, annotation: str, value: ast.expr | None) -> TrainerField:
    """Read ``name: annotation = value``, where the value may be a call of ``dataclasses.field``."""
    if not isinstance(value, ast.Call):
        return TrainerField(name, annotation, _literal(value), _enumeration(module, annotation))
    options = {keyword.arg: keyword.value for keyword in value.keywords}
    factory = options.get("default_factory")
    default = _literal(options.get("default")) if factory is None else _made_by(factory)
    return TrainerField(name, annotation, default, _stated_choices(options) or _enumeration(module, annotation))


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return NotLiteral("")
    try:
        return ast.literal_eval(node)
    except ValueError:
        return NotLiteral(ast.unparse(node))


def _made_by(factory: ast.expr) -> Any:
    """Return the value that a ``default_factory`` makes, where its source says it."""
    if isinstance(factory, ast.Lambda):
        return _literal(factory.body)
    empty: dict[str, Any] = {"list": [], "dict": {}}
    source = ast.unparse(factory)
    return empty.get(source, NotLiteral(f"{source}()"))


def _stated_choices(options: Mapping[str | None, ast.expr]) -> tuple[str, ...]:
    """Return the ``choices`` in a field's metadata, where they are literals."""
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
