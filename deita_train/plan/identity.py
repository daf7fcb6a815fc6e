"""What decides a stage's content, with every default filled in, and which part of it counts in the key.

One rule keeps old artefacts valid. Each kind of stage lists the values that artefacts from before a field existed imply
(`implied` in stages/kinds.py). A field with its implied value stays out of the key; a default that changes differs from
the implied value, and so changes the key. Fields of `trainer:` and `peft:` that a recipe states count in any case,
because they always did.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from deita_train.recipe.config_fields import ConfigField, NotLiteral
from deita_train.recipe.loading import trainings
from deita_train.recipe.model_sections import Dpo, Pretrain, ScorerTraining, Sft, Training, Tuning
from deita_train.recipe.peft_fields import peft_fields
from deita_train.recipe.schema import Recipe
from deita_train.recipe.trainer_fields import trainer_fields
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.training.defaults import DPO_DEFAULTS, MAX_LENGTH, SFT_DEFAULTS

# Trainer fields that change how fast or how safely a training runs, or what it logs, never its result.
PERFORMANCE_FIELDS = frozenset(
    {
        "per_device_train_batch_size", "gradient_checkpointing", "activation_checkpointing", "save_steps",
        "logging_steps", "logging_first_step", "log_on_each_node", "include_num_input_tokens_seen", "log_level",
        "log_level_replica", "disable_tqdm", "debug", "torch_empty_cache_steps", "activation_offloading",
        "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
        "dataloader_persistent_workers", "dataloader_multiprocessing_context", "ddp_timeout", "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers", "ddp_find_unused_parameters", "ddp_static_graph",
    }
)  # fmt: skip
# A section that trains -> its kind of stage, and the trainer fields whose default is ours.
_TRAININGS: Mapping[type[Training], tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        Pretrain: ("base", SFT_DEFAULTS),
        ScorerTraining: ("train_scorer", SFT_DEFAULTS),
        Sft: ("sft", {**SFT_DEFAULTS, "max_length": MAX_LENGTH}),
        Dpo: ("dpo", {**DPO_DEFAULTS, "max_length": MAX_LENGTH}),
    }
)


def hashed(kind: str, identity: Mapping[str, Any], stated: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What counts in a stage's key: its identity without the fields that have their implied value.

    Args:
        kind: the stage's kind.
        identity: every field that decides the content.
        stated: dotted paths that count in any case.
    """
    implied = {path: value for path, value in STAGE_KINDS[kind].implied.items() if path not in stated}
    return _without(identity, implied, "")


def with_implied(kind: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as an earlier version recorded it, with the fields that it implied."""
    whole = {**identity}
    for path, value in STAGE_KINDS[kind].implied.items():
        head, _, name = path.partition(".")
        if not name:
            whole.setdefault(head, value)
        elif isinstance(whole.get(head), Mapping):
            whole[head] = {name: value, **whole[head]}
    return whole


def decisive_trainer(training: Training) -> dict[str, Any]:
    """The trainer fields that decide a training's result, stated or with their default."""
    kind, own = _TRAININGS[type(training)]
    fields = trainer_fields("dpo" if kind == "dpo" else "sft")
    decisive = {name: value for name, value in training.trainer.items() if name not in PERFORMANCE_FIELDS}
    return {**_defaults(kind, "trainer", fields, own), **decisive}


def whole_peft(tuning: Tuning) -> dict[str, Any] | None:
    """The fields of LoraConfig, stated or with their default; None without an adapter."""
    if tuning.peft is None:
        return None
    return {**_defaults(_TRAININGS[type(tuning)][0], "peft", peft_fields(), {}), **tuning.peft}


def stated_fields(training: Training) -> frozenset[str]:
    """The dotted paths of trainer and peft fields that a section states itself."""
    peft = training.peft if isinstance(training, Tuning) else None
    return frozenset({*(f"trainer.{name}" for name in training.trainer), *(f"peft.{name}" for name in peft or ())})


def resolved_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data with every default; what is null by default is left out."""
    data: dict[str, Any] = recipe.model_dump(exclude_none=True)
    for path, training in trainings(recipe):
        section = data
        for name in path.split("."):
            section = section[name]
        section["trainer"] = {**_with_value(decisive_trainer(training)), **training.trainer}
        if isinstance(training, Tuning) and training.peft is not None:
            section["peft"] = {**_with_value(whole_peft(training) or {}), **training.peft}
    return data


def _without(fields: Mapping[str, Any], implied: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    left = {}
    for name, value in fields.items():
        path = f"{prefix}{name}"
        if path not in implied or value != implied[path]:
            left[name] = _without(value, implied, f"{path}.") if isinstance(value, Mapping) else value
    return left


def _defaults(kind: str, section: str, fields: Mapping[str, ConfigField], own: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the fields that the kind lists: ours, or those of the installed library."""
    paths = (path.partition(".") for path in STAGE_KINDS[kind].implied)
    names = [name for head, _, name in paths if head == section and name]
    found = {name: own[name] if name in own else fields[name].default for name in names if name in {*own, *fields}}
    return {name: value for name, value in found.items() if not isinstance(value, NotLiteral)}


def _with_value(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
