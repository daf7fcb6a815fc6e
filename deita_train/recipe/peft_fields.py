"""The check of a recipe's ``peft:`` against peft's LoraConfig as installed.

LoRA and its variants by LoraConfig's own fields (DoRA by ``use_dora``, rank-stabilised LoRA by ``use_rslora``) are
offered. Whatever leaves more than an adapter of an unchanged base is not: the published adapter must fit the base that
it names, in plain peft as well.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from deita_train.recipe.config_fields import ConfigField, config_title, read_config, unknown_field, value_problem
from deita_train.recipe.wording import describe, either, not_allowed

# Fields that the framework sets itself, and what the recipe states instead.
OWNED_PEFT_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "task_type": "every model here is a causal language model",
        "base_model_name_or_path": "state model: beside peft:",
        "revision": "state revision: beside model:",
        "inference_mode": "an adapter that is being trained is not frozen",
        "peft_type": "peft: is LoRA",
        "peft_version": "the installed one is recorded",
        "auto_mapping": "the base's own class is used",
    }
)
_BASE_CHANGES = "it changes the base's weights, and the adapter would not fit the base that it names"
# Fields that are not offered, each with the reason.
REFUSED_PEFT_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "megatron_config": "no model has Megatron's layers here",
        "megatron_core": "no model has Megatron's layers here",
        "loftq_config": _BASE_CHANGES,
        "corda_config": _BASE_CHANGES,
        "lora_ga_config": _BASE_CHANGES,
        "kasa_config": _BASE_CHANGES,
        "eva_config": "its initialisation passes over the data before the training",
        "velora_config": "it is a way to save memory that has not been tried here",
        "monteclora_config": "it samples weights in training and adds a term to the loss that is not kept track of",
        "use_bdlora": "it is a layout for serving that has not been tried here",
        "arrow_config": "it routes between adapters that are trained already",
        "alora_invocation_tokens": "it is inactive up to a text that must be in every row",
        "use_qalora": "base models are not quantized",
        "qalora_group_size": "base models are not quantized",
        "layer_replication": "it makes another architecture than the base's",
        "runtime_config": "it is not part of the adapter and would have to be stated again wherever it is read",
    }
)
INITIALISATIONS = ("gaussian", "orthogonal", "mica")
_REFUSED_INITIALISATIONS = ("pissa", "olora", "corda", "loftq", "lora_ga", "eva")
# Narrower than peft annotates them.
_ANNOTATIONS: Mapping[str, str] = MappingProxyType(
    {"rank_pattern": "dict[str, int] | None", "alpha_pattern": "dict[str, float] | None"}
)
_CONFIG = ("peft", "LoraConfig")


def peft_fields() -> Mapping[str, ConfigField]:
    """Return the installed fields of LoraConfig by name, inherited ones first.

    Raises:
        UserError: peft is not installed, or its source has no such class.
    """
    fields = read_config(*_CONFIG)
    narrowed = {name: replace(fields[name], annotation=text) for name, text in _ANNOTATIONS.items() if name in fields}
    return MappingProxyType({**fields, **narrowed})


def check_peft(values: Mapping[str, Any], *, where: str) -> list[str]:
    """Check a ``peft:`` mapping against the installed fields.

    Args:
        values: Field names and values as YAML gives them.
        where: The mapping's dotted recipe path, such as ``sft.peft``.

    Returns:
        One text for each problem, ``<where>.<field>: <problem>``, in the order of ``values``; empty when all is well.
    """
    fields = peft_fields()
    problems = ((name, _problem(fields, name, value)) for name, value in values.items())
    return [f"{where}.{name}: {problem}" for name, problem in problems if problem]


def _problem(fields: Mapping[str, ConfigField], name: str, value: Any) -> str | None:
    if name in OWNED_PEFT_FIELDS:
        return f"set by the framework: {OWNED_PEFT_FIELDS[name]}"
    if name in REFUSED_PEFT_FIELDS:
        return f"not offered: {REFUSED_PEFT_FIELDS[name]}"
    if name not in fields:
        return unknown_field(name, config_title(*_CONFIG), [field.name for field in fields.values() if _offered(field)])
    if name == "init_lora_weights" and isinstance(value, str):
        return _initialisation_problem(value)
    return value_problem(fields[name], value) or _range_problem(name, value)


def _offered(field: ConfigField) -> bool:
    return field.init and field.name not in OWNED_PEFT_FIELDS and field.name not in REFUSED_PEFT_FIELDS


def _initialisation_problem(value: str) -> str | None:
    if value in INITIALISATIONS:
        return None
    allowed = ("true", "false", *INITIALISATIONS)
    if not value.startswith(_REFUSED_INITIALISATIONS):
        return not_allowed(value, allowed)
    return f"{value!r} is not offered: it changes the base's weights or reads the data; expected {either(allowed)}"


def _range_problem(name: str, value: Any) -> str | None:
    if name == "r" and value < 1:
        return f"{describe(value)}; expected more than 0"
    if name == "lora_dropout" and not 0 <= value < 1:
        return f"{describe(value)}; expected 0 or more and less than 1"
    if name == "rank_pattern" and any(rank < 1 for rank in (value or {}).values()):
        return f"{value}; expected ranks of more than 0"
    return None
