"""The fields of trl's SFTConfig and DPOConfig as installed, and the check of a recipe's ``trainer:`` against them."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

from deita_train.recipe.config_fields import ConfigField, config_title, read_config, unknown_field, value_problem

TrainerKind = Literal["sft", "dpo"]

_CONFIG_CLASS: dict[TrainerKind, str] = {"sft": "SFTConfig", "dpo": "DPOConfig"}
# Fields that published recipes still carry, and what replaces each.
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

_PUSH = "`deita-train push` uploads a model and its card after the run"
# Trainer fields that the framework sets itself, and what the recipe states instead.
OWNED_FIELDS: Mapping[str, str] = {
    "output_dir": "the store decides where a stage writes",
    "resume_from_checkpoint": "repeating the command resumes",
    "deepspeed": "state launch: zero2 or zero3 beside trainer:",
    "fsdp": "state launch: fsdp2 beside trainer:",
    "fsdp_config": "state launch: with a file of your own beside trainer:",
    "seed": "state seed: beside trainer:",
    "data_seed": "state seed: beside trainer:",
    "gradient_accumulation_steps": "it follows from global_batch_size: beside trainer:",
    "use_cpu": "state launch: cpu beside trainer:",
    "dataset_kwargs": "the data is prepared before the ranks start",
    "chat_template_path": "state chat_template: beside trainer:",
    "assistant_only_loss": "the loss is on assistant turns only",
    "completion_only_loss": "the loss is on assistant turns only",
    "push_to_hub": _PUSH,
    "hub_token": f"{_PUSH}, and a token has no place in a recipe",
    "hub_model_id": _PUSH,
    "hub_private_repo": _PUSH,
    "hub_strategy": _PUSH,
    "hub_always_push": _PUSH,
    "hub_revision": _PUSH,
    "save_strategy": "checkpoints are saved every save_steps",
    "save_total_limit": "the last two checkpoints are kept",
    "save_only_model": "a checkpoint without its optimizer cannot be resumed",
    "ignore_data_skip": "a resumed run continues with the rows that were not seen",
    "auto_find_batch_size": "state per_device_train_batch_size",
    "accelerator_config": "state launch: with a file of your own beside trainer:",
    "eos_token": "the tokenizer's own ends a turn",
    "truncation_mode": "rows are cut on the right",
    "dataset_text_field": "rows are rendered by the chat template",
    "packing": "state packing: beside trainer: (of sft and of scorers)",
    "padding_free": "state packing: beside trainer: (of sft and of scorers)",
    "packing_strategy": "a packed row holds the conversations of one micro-batch",
    "eval_packing": "state evaluate: instead",
    "do_train": "a section that is there is carried out",
    "do_eval": "state evaluate: instead",
    "eval_strategy": "state evaluate: instead",
    "load_best_model_at_end": "there is no hidden held-out split to judge by",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "report_to": "state report_to: or wandb: at the top of the recipe",
    "run_name": "a logged run is named after its stage; state report_to: or wandb: at the top of the recipe",
    "project": "state wandb.project at the top of the recipe; trackio's is the recipe's name",
}

# Fields that do not go together with reference log-probabilities computed once, by a stage of their own.
OWNED_DPO_FIELDS: Mapping[str, str] = {
    "precompute_ref_log_probs": "the reference log-probabilities are computed once and kept",
    "precompute_ref_batch_size": "state dpo.reference.max_batch_tokens",
    "sync_ref_model": "the reference is the model before DPO, and does not move",
    "ref_model_mixup_alpha": "the reference is the model before DPO, and does not move",
    "ref_model_sync_steps": "the reference is the model before DPO, and does not move",
    "ld_alpha": "the reference log-probabilities are summed over the whole answer",
    "pad_token": "the tokenizer's own pads",
    "padding_free": "trl does not offer it at present",
}


def owned_fields(section: str) -> Mapping[str, str]:
    """Return the fields that the framework sets in the ``trainer:`` of a section, and what states each instead."""
    if section == "sft":
        return OWNED_FIELDS
    if section == "dpo":
        return {**OWNED_FIELDS, **OWNED_DPO_FIELDS}
    return {**OWNED_FIELDS, "max_length": "state max_length: beside trainer:"}


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
