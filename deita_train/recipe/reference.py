"""docs/recipe.md, written from the schema: `python -m deita_train.recipe.reference > docs/recipe.md`.

The tables of refused trainer fields in docs/training.md come from here too; a test compares them.
"""

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from deita_train.recipe.data_sections import Section
from deita_train.recipe.schema import Recipe
from deita_train.recipe.trainer_fields import (
    OWNED_BESIDE,
    OWNED_DPO_FIELDS,
    OWNED_FIELDS,
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_IN_DPO,
)

_INTRODUCTION = """\
# The keys of a recipe

Written by `python -m deita_train.recipe.reference` from the docstrings of the schema (`deita_train/recipe/`); a test
compares the two. `deita-train validate RECIPE` checks a recipe against it. A key without a default may be left out
unless it is required; its text says what happens then. Paths are relative to the folder in which a command is given.

`deita-train recipes` lists the recipes that come with the package. `run`, `plan`, `validate` and the other commands
take a name from that list where there is no file of that name; `deita-train recipes NAME > my.yaml` writes one out.

What several sections share can be stated once, with YAML's anchors, aliases and merge keys:

```yaml
x-file: &file pool.jsonl
x-tuned: &tuned {global_batch_size: 64, launch: zero2}
pool: {dataset: *file, instruction_share: [0.1, 1.0]}
evaluate: {heldout: {dataset: *file, instruction_share: [0.0, 0.1]}}
sft: {<<: *tuned, model: mistralai/Mistral-7B-v0.1, launch: zero3}
```

Keys at the top that begin with `x-` are no part of the recipe: they hold anchors, which may also stand anywhere else
before their aliases. `<<` takes one mapping or a list, in which the earlier ones have precedence; a mapping's own keys
come before all of them. `--set x-file=other.jsonl` changes a shared value for all its aliases; any other `--set` comes
after they are resolved, and changes one place. Messages name the line on which a value is written. A repeated key or
anchor is refused.

`deita-train schema` prints the same as a JSON Schema, with the trainer and peft fields of the installed trl and peft.
The shipped recipes begin with a line that names `recipes/recipe.schema.json`, which is that output: an editor with
yaml-language-server, such as VS Code with the YAML extension, completes keys and marks mistakes by it. For recipes of
your own, write the output to a file and begin them with `# yaml-language-server: $schema=recipe.schema.json`.
`deita-train validate` checks the rules between keys as well.
"""
_WORDS: Mapping[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "anything"}
_LIMITS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def reference() -> str:
    """Return the whole page: a table for each section of a recipe, in the order in which a recipe names them."""
    sections: dict[type[Section], list[str]] = {}
    for path, section in sections_below("", Recipe):
        sections.setdefault(section, []).append(path)
    anchors = {section: paths[0].replace(".", "") for section, paths in sections.items()}
    pages = [_page(section, paths, anchors) for section, paths in sections.items()]
    return "\n".join([_INTRODUCTION, *pages])


def refused_fields_tables() -> str:
    """Return the trainer fields that no recipe may state, with the reasons, as they stand in docs/training.md."""
    groups = {
        "set by the framework": OWNED_FIELDS,
        "set by the framework, in `dpo`": OWNED_DPO_FIELDS,
        "set by the framework, in `base.pretrain` and scorers": OWNED_BESIDE,
        "without effect": WITHOUT_EFFECT,
        "without effect, in `dpo`": WITHOUT_EFFECT_IN_DPO,
    }
    tables = []
    for title, reasons in groups.items():
        by_reason: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            by_reason.setdefault(reason, []).append(f"`{name}`")
        rows = [f"| {', '.join(names)} | {reason} |" for reason, names in by_reason.items()]
        tables.append("\n".join([f"| {title} | |", "|---|---|", *rows]))
    return "\n\n".join(tables)


def field_texts(section: type[Section]) -> dict[str, str]:
    """Return the docstring under each field of a section, inherited fields included.

    They are read here, and not by pydantic's `use_attribute_docstrings`, which parses the source at every import.
    """
    texts: dict[str, str] = {}
    for base in reversed(section.__mro__[: section.__mro__.index(Section)]):
        body = ast.parse(inspect.getsource(base)).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                texts[ast.unparse(field.target)] = inspect.cleandoc(ast.literal_eval(text.value))
    return texts


def sections_below(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Yield a section that stands at a dotted path, then every section below it with its path."""
    yield path, section
    for name, field in section.model_fields.items():
        for inner in _sections_in(field.annotation):
            yield from sections_below(f"{path}.{name}".lstrip("."), inner)


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]


def _page(section: type[Section], paths: list[str], anchors: Mapping[type[Section], str]) -> str:
    """Return one section's heading, what it is, and the table of its keys."""
    about = inspect.cleandoc(section.__doc__ or "").replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n")
    also = f"\n\nThe same keys: {', '.join(f'`{path}`' for path in paths[1:])}." if paths[1:] else ""
    texts = field_texts(section)
    rows = [
        [f"`{name}`", _words(field.annotation, anchors) + _limits(field.metadata), _default(field), texts[name]]
        for name, field in section.model_fields.items()
    ]
    lines = [f"| {' | '.join(cells)} |".replace("\n", " ") for cells in rows]
    heading = f"## `{paths[0]}`" if paths[0] else "## At the top"
    return "\n".join([heading, "", about + also, "", "| key | type | default | |", "|---|---|---|---|", *lines, ""])


def _words(annotation: Any, anchors: Mapping[type[Section], str]) -> str:
    """Return a type in plain words; a section as a link to its table."""
    container, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if container is Annotated:
        return _words(arguments[0], anchors) + _limits(arguments[1].metadata)
    if container in (Union, UnionType):
        return " or ".join(_words(member, anchors) for member in arguments if member is not NoneType)
    if container is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if container in (list, dict):
        return f"{'list' if container is list else 'mapping'} of {_words(arguments[-1], anchors)}"
    return f"[section](#{anchors[annotation]})" if annotation in anchors else _WORDS[annotation]


def _limits(metadata: list[Any]) -> str:
    """Return the limits of a number, such as ` > 0`; those of texts and lists are left to their field's text."""
    signs = [
        f" {sign} {getattr(limit, name)}"
        for limit in metadata
        for name, sign in _LIMITS.items()
        if hasattr(limit, name)
    ]
    return ",".join(signs)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or isinstance(default, Section):
        return ""
    return f"`{default if isinstance(default, str) and default else json.dumps(default)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
