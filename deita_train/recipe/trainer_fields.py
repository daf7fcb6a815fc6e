"""The fields of trl's SFTConfig and DPOConfig as installed, and the check of a recipe's ``trainer:`` against them.

What is stated has its effect, or is refused: fields that the framework sets, and fields that would change nothing
here, by the tables below; values outside their meaning, and fields that others make idle, by
:mod:`deita_train.recipe.trainer_rules`.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

from deita_train.recipe.config_fields import ConfigField, config_title, read_config, unknown_field, value_problem
from deita_train.recipe.trainer_rules import combination_problems, meaning_problem

TrainerKind = Literal["sft", "dpo"]

_CONFIG_CLASS: dict[TrainerKind, str] = {"sft": "SFTConfig", "dpo": "DPOConfig"}
# Fields that published recipes still carry, and what replaces each.
GONE = MappingProxyType(
    {
        "warmup_ratio": "write warmup_steps, which takes a ratio below 1",
        "max_seq_length": "write max_length",
        "max_prompt_length": "max_length bounds prompt and answer together",
        "max_completion_length": "max_length bounds prompt and answer together",
        "torch_dtype": "write model_init_kwargs: {dtype: bfloat16}; it belongs to the model",
        "group_by_length": "write train_sampling_strategy: group_by_length",
        "evaluation_strategy": "state evaluate: instead",
        "no_cuda": "state launch: cpu beside trainer:",
        "push_to_hub_token": "`deita-train push` uploads a model after the run",
        "push_to_hub_model_id": "`deita-train push` uploads a model after the run",
        "per_gpu_train_batch_size": "write per_device_train_batch_size",
        "per_gpu_eval_batch_size": "state evaluate: instead",
        "adafactor": "write optim: adafactor",
        "include_inputs_for_metrics": "state evaluate: instead",
        "overwrite_output_dir": "leave it out",
    }
)

_PUSH = "`deita-train push` uploads a model and its card after the run"
_LAUNCH_FILE = "state launch: with a file of your own beside trainer:"
_TRACKIO = "state report_to: at the top of the recipe"
_ROWS = "the prepared rows hold what the loss reads, and their length"
# Trainer fields that the framework sets itself, and what the recipe states instead.
OWNED_FIELDS: Mapping[str, str] = {
    "output_dir": "the store decides where a stage writes",
    "resume_from_checkpoint": "repeating the command resumes",
    "deepspeed": "state launch: zero2 or zero3 beside trainer:",
    "fsdp": "state launch: fsdp2 beside trainer:",
    "fsdp_config": _LAUNCH_FILE,
    "parallelism_config": _LAUNCH_FILE,
    "local_rank": "the launch numbers its ranks",
    "ddp_backend": "ranks on GPUs talk by nccl, and on CPUs by gloo",
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
    "save_on_each_node": "every machine writes to the same runs folder",
    "enable_jit_checkpoint": "SIGTERM saves a checkpoint as it is",
    "restore_callback_states_from_checkpoint": "a resumed run continues as if it had not stopped",
    "save_only_model": "a checkpoint without its optimizer cannot be resumed",
    "ignore_data_skip": "a resumed run continues with the rows that were not seen",
    "auto_find_batch_size": "state per_device_train_batch_size",
    "accelerator_config": _LAUNCH_FILE,
    "trust_remote_code": "state trust_remote_code: at the top of the recipe",
    "use_cache": "a training caches nothing",
    "average_tokens_across_devices": "the loss is a mean over the global batch, whatever the number of ranks",
    "dataloader_in_order": "the order of rows follows from seed:",
    "remove_unused_columns": _ROWS,
    "label_names": _ROWS,
    "length_column_name": _ROWS,
    "eos_token": "the tokenizer's own ends a turn",
    "pad_token": "the tokenizer's own pads",
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
    "logging_strategy": "the loss is logged every logging_steps",
    "skip_memory_metrics": "memory_gib is logged beside the loss",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "report_to": "state report_to: or wandb: at the top of the recipe",
    "run_name": "a logged run is named after its stage; state report_to: or wandb: at the top of the recipe",
    "project": "state wandb.project at the top of the recipe; trackio's is the recipe's name",
    "trackio_space_id": _TRACKIO,
    "trackio_bucket_id": _TRACKIO,
    "trackio_static_space_id": _TRACKIO,
}

# Fields that do not go together with reference log-probabilities computed once, by a stage of their own.
OWNED_DPO_FIELDS: Mapping[str, str] = {
    "precompute_ref_log_probs": "the reference log-probabilities are computed once and kept",
    "precompute_ref_batch_size": "state dpo.reference.max_batch_tokens",
    "sync_ref_model": "the reference is the model before DPO, and does not move",
    "ref_model_mixup_alpha": "the reference is the model before DPO, and does not move",
    "ref_model_sync_steps": "the reference is the model before DPO, and does not move",
    "ld_alpha": "the reference log-probabilities are summed over the whole answer",
    "padding_free": "trl does not offer it at present",
}

# Fields of trainings that state the same as a key of their section.
OWNED_BESIDE: Mapping[str, str] = {"max_length": "state max_length: beside trainer:"}

_NO_EVALUATION = "nothing is evaluated during a training; state evaluate: instead"
# Fields that would change nothing here, and why. They would change the artefact's key.
WITHOUT_EFFECT: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps", "eval_do_concat_batches",
            "eval_use_gather_object", "per_device_eval_batch_size", "prediction_loss_only", "include_for_metrics",
            "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval", "metric_for_best_model", "greater_is_better",
            "do_predict",
        ),
        _NO_EVALUATION,
    ),
    "dataset_num_proc": "the rows are prepared before the ranks start",
    "shuffle_dataset": "each epoch has an order of its own, by seed:",
}  # fmt: skip
WITHOUT_EFFECT_IN_DPO: Mapping[str, str] = {"label_smoothing_factor": "its loss reads label_smoothing, write that"}


def refused_fields(section: str) -> Mapping[str, str]:
    """Return the fields that the ``trainer:`` of a section never takes, each with the text that refuses it."""
    owned, without_effect = {**OWNED_FIELDS}, {**WITHOUT_EFFECT}
    if section == "dpo":
        owned |= OWNED_DPO_FIELDS
        without_effect |= WITHOUT_EFFECT_IN_DPO
    elif section != "sft":
        owned |= OWNED_BESIDE
    return {
        **{name: f"set by the framework: {reason}" for name, reason in owned.items()},
        **{name: f"would have no effect: {reason}" for name, reason in without_effect.items()},
    }


def trainer_fields(kind: TrainerKind) -> Mapping[str, ConfigField]:
    """Return the installed fields of SFTConfig (``sft``) or DPOConfig (``dpo``) by name, inherited ones first.

    Raises:
        UserError: trl is not installed, or its source has no such class.
    """
    return read_config("trl", _CONFIG_CLASS[kind])


def check_trainer(kind: TrainerKind, values: Mapping[str, Any], *, where: str, refused: Mapping[str, str]) -> list[str]:
    """Check a ``trainer:`` mapping against the installed fields, and what they mean here.

    Args:
        kind: Which trainer the values are for.
        values: Field names and values as YAML gives them.
        where: The mapping's dotted recipe path, such as ``sft.trainer``.
        refused: Fields that are never taken, each with the text that says so.

    Returns:
        One text for each problem, ``<where>.<field>: <problem>``, in the order of ``values``; empty when all is well.
    """
    fields = trainer_fields(kind)
    found = ((name, _problem(kind, fields, name, value, refused)) for name, value in values.items())
    alone = {name: problem for name, problem in found if problem is not None}
    right = {name: value for name, value in values.items() if name not in alone}
    problems = {**combination_problems(kind, right, alone.keys()), **alone}
    return [f"{where}.{name}: {problems[name]}" for name in values if name in problems]


def _problem(
    kind: TrainerKind, fields: Mapping[str, ConfigField], name: str, value: Any, refused: Mapping[str, str]
) -> str | None:
    if name in refused:
        return refused[name]
    if name not in fields:
        allowed = [field.name for field in fields.values() if field.init and field.name not in refused]
        return _unknown(kind, name, allowed)
    return value_problem(fields[name], value) or meaning_problem(name, value)


def _unknown(kind: TrainerKind, name: str, allowed: Collection[str]) -> str:
    config = config_title("trl", _CONFIG_CLASS[kind])
    if name in GONE:
        return f"gone from {config}: {GONE[name]}"
    other: TrainerKind = "dpo" if kind == "sft" else "sft"
    if name in trainer_fields(other):
        return f"no field of {config}, only of {_CONFIG_CLASS[other]}"
    return unknown_field(name, config, allowed)
