"""The fields of trl's SFTConfig and DPOConfig as installed, and the check of a recipe's ``trainer:`` against them."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

from deita_train.recipe.config_fields import ConfigField, config_title, read_config, unknown_field, value_problem

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
        "push_to_hub_token": "`deita-train push` uploads a model after the run",
        "push_to_hub_model_id": "`deita-train push` uploads a model after the run",
        "per_gpu_train_batch_size": "write per_device_train_batch_size",
        "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
        "adafactor": "write optim: adafactor",
        "include_inputs_for_metrics": "write include_for_metrics: [inputs]",
        "overwrite_output_dir": "leave it out",
    }
)


def trainer_fields(kind: TrainerKind) -> Mapping[str, ConfigField]:
    """Return the installed fields of SFTConfig (``sft``) or DPOConfig (``dpo``) by name, inherited ones first.

    Raises:
        UserError: trl is not installed, or its source has no such class.
    """
    return read_config("trl", _CONFIG_CLASS[kind])


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
    kind: TrainerKind, fields: Mapping[str, ConfigField], name: str, value: Any, owned: Mapping[str, str]
) -> str | None:
    if name in owned:
        return f"set by the framework: {owned[name]}"
    if name not in fields:
        return _unknown(kind, name, [field.name for field in fields.values() if field.init and field.name not in owned])
    return value_problem(fields[name], value)


def _unknown(kind: TrainerKind, name: str, allowed: Collection[str]) -> str:
    config = config_title("trl", _CONFIG_CLASS[kind])
    if name in GONE:
        return f"gone from {config}: {GONE[name]}"
    other: TrainerKind = "dpo" if kind == "sft" else "sft"
    if name in trainer_fields(other):
        return f"no field of {config}, only of {_CONFIG_CLASS[other]}"
    return unknown_field(name, config, allowed)
