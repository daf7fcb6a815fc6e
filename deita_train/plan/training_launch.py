"""What a launch file may say of a training: how its ranks work together, and nothing that changes what they learn.

No key knows the file, so whatever decides content is the recipe's to state.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deita_train.errors import UserError, raise_machine_fault
from deita_train.plan.launch import read_config
from deita_train.training.mixed_precision import MixedPrecision

# Of a DeepSpeed file: what changes how it works or what it prints, not what is learnt.
_HARMLESS = frozenset(
    {
        "zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "steps_per_print",
        "wall_clock_breakdown", "dump_state", "memory_breakdown", "activation_checkpointing", "comms_logger",
        "flops_profiler", "monitor_config", "tensorboard", "wandb", "csv_monitor", "comet", "aio", "checkpoint",
        "disable_allgather", "timers", "train_batch_size", "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps", "gradient_clipping", "bf16", "fp16",
    }
)  # fmt: skip
_OF_FP16 = frozenset(
    {
        "enabled", "auto_cast", "loss_scale", "loss_scale_window", "initial_scale_power", "hysteresis",
        "consecutive_hysteresis", "min_loss_scale",
    }
)  # fmt: skip
# What the recipe states instead of a key of DeepSpeed's.
_STATED_INSTEAD = {
    "optimizer": "trainer.optim and its numbers",
    "scheduler": "trainer.lr_scheduler_type and warmup_steps",
    "amp": "trainer.bf16 or trainer.fp16",
}
_OF_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


def launch_contradictions(
    config_file: str, trainer: Mapping[str, Any], precision: MixedPrecision, *, is_stated: bool
) -> list[str]:
    """What in a launch file would change the content of a training.

    Args:
        config_file: accelerate's configuration.
        trainer: the training's fields with their defaults.
        precision: in which the training computes.
        is_stated: whether the recipe says so; it then holds over the file's `mixed_precision`.
    """
    values = read_config(Path(config_file))
    settings = values.get("deepspeed_config") or {}
    problems = [*_of_accelerate(values), *_of_precision(values, precision, is_stated=is_stated)]
    if values["distributed_type"] == "DEEPSPEED":
        clips = float(trainer["max_grad_norm"] or 0)
        if "deepspeed_config_file" in settings:
            problems += _of_deepspeed_file(Path(settings["deepspeed_config_file"]), clips, precision)
        else:
            problems += _of_batches_and_clipping("deepspeed_config.", settings, clips, unstated="auto")
    return problems


def unsaved_model(config_file: str) -> str | None:
    """The setting of a launch file with which transformers silently saves no model; None if there is none."""
    values = read_config(Path(config_file))
    if values["distributed_type"] == "FSDP":
        fsdp = values.get("fsdp_config") or {}
        # What accelerate takes where nothing is stated.
        default = "FULL_STATE_DICT" if str(fsdp.get("fsdp_version", 1)) == "1" else "SHARDED_STATE_DICT"
        found = fsdp.get("fsdp_state_dict_type", default)
        return None if found == "FULL_STATE_DICT" else f"fsdp_state_dict_type is {found}; write FULL_STATE_DICT"
    if values["distributed_type"] == "DEEPSPEED":
        return _unsaved_by_deepspeed(values.get("deepspeed_config") or {})
    return None


def _unsaved_by_deepspeed(settings: dict[str, Any]) -> str | None:
    if "deepspeed_config_file" in settings:
        zero = read_deepspeed_file(Path(settings["deepspeed_config_file"]))["zero_optimization"]
        stage = zero["stage"]
        name, saves = "stage3_gather_16bit_weights_on_model_save", zero.get("stage3_gather_16bit_weights_on_model_save")
    else:
        name, saves = "zero3_save_16bit_model", settings.get("zero3_save_16bit_model")
        stage = settings.get("zero_stage", 2)
    return None if stage != 3 or saves is True else f"{name} is not true under ZeRO-3; write {name}: true"


def read_deepspeed_file(file: Path) -> dict[str, Any]:
    """DeepSpeed's own configuration, which an accelerate configuration names.

    Raises:
        UserError: it cannot be read, or is none of ZeRO's.
    """
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        config["zero_optimization"]["stage"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise_machine_fault(error, file)
        raise UserError(
            f"deepspeed_config_file {file} cannot be read, or states no zero_optimization.stage ({error}); fix it"
        ) from error
    return config


def _of_accelerate(values: Mapping[str, Any]) -> Iterator[str]:
    dynamo = {"dynamo_backend": values.get("dynamo_backend"), **(values.get("dynamo_config") or {})}
    if str(dynamo["dynamo_backend"] or "no").lower() != "no":
        yield "dynamo_backend: state trainer.torch_compile, and leave it out here"
    if (values.get("fsdp_config") or {}).get("fsdp_activation_checkpointing") is True:
        yield "fsdp_activation_checkpointing: state trainer.activation_checkpointing, and write false here"
    sizes = values.get("parallelism_config") or {}
    for kind in ("tp", "cp", "sp"):
        size = sizes.get(f"parallelism_config_{kind}_size", sizes.get(f"{kind}_size", 1))
        if size != 1:
            yield f"parallelism_config_{kind}_size is {size}: ranks that share rows are not supported; write 1"


def _of_precision(values: Mapping[str, Any], precision: MixedPrecision, *, is_stated: bool) -> Iterator[str]:
    named = values.get("mixed_precision")
    # YAML 1.1, by which accelerate reads the file, takes an unquoted no for false.
    named = "no" if named is False else named
    if named not in (None, "no", "bf16", "fp16"):
        yield f"mixed_precision: {named} is not supported; write 'no', bf16 or fp16"
    elif named is not None and named != precision and not is_stated:
        yield (
            f"mixed_precision is {named}, and a training computes in {_NAMES[precision]} here unless the recipe states "
            f"otherwise: state trainer.bf16 or trainer.fp16, or write mixed_precision: {_WRITTEN[precision]}"
        )


_NAMES: Mapping[MixedPrecision, str] = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
_WRITTEN: Mapping[MixedPrecision, str] = {"no": "'no'", "bf16": "bf16", "fp16": "fp16"}


def _of_deepspeed_file(file: Path, clips: float, precision: MixedPrecision) -> Iterator[str]:
    config = read_deepspeed_file(file)
    for name in config:
        if name not in _HARMLESS:
            instead = f"state {_STATED_INSTEAD[name]}, and " if name in _STATED_INSTEAD else ""
            yield f"{file}: {name} may change what is learnt, and no key knows it; {instead}leave it out"
    for name in config["zero_optimization"]:
        if name.startswith("zero_quantized") and config["zero_optimization"][name]:
            yield f"{file}: zero_optimization.{name} rounds what is learnt; leave it out"
    for name, allowed in (("bf16", {"enabled"}), ("fp16", _OF_FP16)):
        section = config.get(name) or {}
        for key in section:
            if key not in allowed:
                yield f"{file}: {name}.{key} changes the precision; leave it out"
        enabled = section.get("enabled", "auto")
        if enabled not in ("auto", precision == name):
            told = f"{name}.enabled is {json.dumps(enabled)}, and the training computes in {_NAMES[precision]}"
            yield f"{file}: {told}; write auto"
    yield from _of_batches_and_clipping(f"{file}: ", config, clips, unstated=0)


def _of_batches_and_clipping(
    where: str, settings: Mapping[str, Any], clips: float, *, unstated: str | float
) -> Iterator[str]:
    """`unstated` is what holds where the file says nothing of clipping."""
    for name in _OF_BATCH:
        if settings.get(name, "auto") != "auto":
            yield f"{where}{name}: it follows from global_batch_size; write auto, or leave it out"
    stated = settings.get("gradient_clipping")
    clipping = unstated if stated is None else stated
    if clipping != "auto" and _number(clipping) != clips:
        yield f"{where}gradient_clipping is {clipping}, and trainer.max_grad_norm {clips:g}; write auto"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
