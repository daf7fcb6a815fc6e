"""The recipe as a JSON Schema (draft 2020-12), by which editors complete and check it.

It says less than `deita-train validate`: rules between fields are in their descriptions alone.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from deita_train.recipe.annotations import as_json_schema
from deita_train.recipe.config_fields import ConfigField
from deita_train.recipe.data_sections import Section
from deita_train.recipe.model_sections import Dpo, Sft, Training, Tuning
from deita_train.recipe.peft_fields import INITIALISATIONS, OWNED_PEFT_FIELDS, REFUSED_PEFT_FIELDS, peft_fields
from deita_train.recipe.reference import field_texts, sections_below
from deita_train.recipe.schema import Recipe
from deita_train.recipe.sweep import OF_BASE_RUN, OPTIONS
from deita_train.recipe.trainer_fields import TrainerKind, refused_fields, trainer_fields
from deita_train.recipe.yaml_source import SHARED

# Whose configuration classes the schema reads.
READ_PACKAGES = ("trl", "transformers", "peft")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PEFT = "peft"
_SHARED = "No part of the recipe: holds values with anchors, for aliases further down."


class _Generator(GenerateJsonSchema):
    """Leaves out the titles that pydantic makes of the names."""

    schema_dialect = _DRAFT

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def recipe_schema() -> dict[str, Any]:
    """Return the schema, with the trainer and peft fields of the installed trl and peft.

    Raises:
        UserError: trl or peft is not installed, or has no such configuration class.
    """
    schema = Recipe.model_json_schema(schema_generator=_Generator)
    sections = {section.__name__: section for _, section in sections_below("", Recipe)}
    definitions = schema["$defs"]
    for name, section in sections.items():
        _describe(schema if section is Recipe else definitions[name], section)
    definitions |= {name: _config_schema(fields, refused) for name, (fields, refused) in _trainers().items()}
    definitions[_PEFT] = _peft_schema()
    for name, section in sections.items():
        if issubclass(section, Training):
            trainer = definitions[name]["properties"]["trainer"]
            definitions[name]["properties"]["trainer"] = {
                **_reference(_trainer_name(section)), "description": trainer["description"],
            }  # fmt: skip
        if issubclass(section, Tuning):
            peft = definitions[name]["properties"]["peft"]
            peft["anyOf"] = [_reference(_PEFT), {"type": "null"}]
    schema["properties"]["sweep"]["anyOf"] = [_sweep_schema(), {"type": "null"}]
    schema["patternProperties"] = {f"^{SHARED}": {"description": _SHARED}}
    read = ", ".join(f"{package} {version(package)}" for package in READ_PACKAGES)
    about = f"Written by `deita-train schema`, with fields of {read}."
    return {"$schema": _DRAFT, "$comment": about, "title": "A recipe of deita-train", **schema}


def _describe(definition: dict[str, Any], section: type[Section]) -> None:
    """Put the docstrings of a section's fields into its schema, and take its class's name out."""
    del definition["title"]
    definition["description"] = inspect.cleandoc(section.__doc__ or "")
    for name, text in field_texts(section).items():
        definition["properties"][name]["description"] = text


def _trainer_name(section: type[Training]) -> str:
    """Return the name of the definition for a section's `trainer`."""
    if issubclass(section, Sft):
        return "sft.trainer"
    return "dpo.trainer" if issubclass(section, Dpo) else "trainer"


def _trainers() -> dict[str, tuple[Mapping[str, ConfigField], Mapping[str, str]]]:
    """Return the fields of each `trainer`, and those that it never takes."""
    kinds: dict[str, TrainerKind] = {"sft.trainer": "sft", "dpo.trainer": "dpo", "trainer": "sft"}
    return {name: (trainer_fields(kind), refused_fields(name.split(".")[0])) for name, kind in kinds.items()}


def _config_schema(fields: Mapping[str, ConfigField], refused: Mapping[str, str]) -> dict[str, Any]:
    properties = {
        field.name: field_schema(field) for field in fields.values() if field.init and field.name not in refused
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def field_schema(field: ConfigField) -> dict[str, Any]:
    """Return the schema of one field of a library's configuration; `value_problem` checks the same.

    Without its default, which is ours for some fields; `recipe.resolved.yaml` of a run has them all.
    """
    values = as_json_schema(field.annotation)
    if field.choices:
        others = [member for member in values.get("anyOf", ()) if member.get("type") != "string"]
        values = {"anyOf": [{"enum": list(field.choices)}, *others]} if others else {"enum": list(field.choices)}
    return values


def _peft_schema() -> dict[str, Any]:
    schema = _config_schema(peft_fields(), {**OWNED_PEFT_FIELDS, **REFUSED_PEFT_FIELDS})
    properties = schema["properties"]
    properties["init_lora_weights"] = {"enum": [True, False, *INITIALISATIONS]}
    properties["r"]["minimum"] = 1
    properties["lora_dropout"] |= {"minimum": 0, "exclusiveMaximum": 1}
    return schema


def _sweep_schema() -> dict[str, Any]:
    """Return the schema of `sweep`: its options, the recipe's own paths, and every other path or several of them."""
    sections = [name for name in Recipe.model_fields if name not in (*OF_BASE_RUN, "sweep")]
    path = rf"({'|'.join(map(re.escape, sections))})(\.[^.,\s]+)*"
    options = {
        "until": {"type": "string", "description": "The last stage of each cell, by kind or label."},
        "whole_pool": {"type": "boolean", "description": "Adds the trainings on the whole pool.", "default": False},
    }
    assert set(options) == set(OPTIONS)
    values = {"type": "array", "minItems": 1}
    return {
        "type": "object",
        "propertyNames": {"pattern": rf"^({'|'.join(OPTIONS)}|{path}(\s*,\s*{path})*)$"},
        "properties": {**options, **{name: {**values, "items": items} for name, items in _swept_paths()}},
        "additionalProperties": values,
    }


def _swept_paths() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every path of a recipe with a section around it, and a reference to the schema of its values."""
    for path, section in sections_below("", Recipe):
        for name in section.model_fields if path and path.split(".")[0] not in OF_BASE_RUN else ():
            yield f"{path}.{name}", _reference(f"{section.__name__}/properties/{name}")


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}
