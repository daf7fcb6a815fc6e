"""How to train, as the recipe states it, and trl's configuration that follows: batch arithmetic, steps, checkpoints."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers.utils import is_flash_attn_2_available
from trl import DPOConfig, SFTConfig

from deita_train.training.sizes import model_options

# A run keeps about this many checkpoints' worth of progress; a kill costs at most one part.
_CHECKPOINTS_PER_RUN = 5
# What the installed transformers calls activation checkpointing: some versions know one name, later ones both.
CHECKPOINTING = [
    name for name in ("activation_checkpointing", "gradient_checkpointing") if name in SFTConfig.__dataclass_fields__
]
# Sequences per micro-batch at most, unless stated; a preference pair is two.
_MICRO_BATCH = 32

Kind = Literal["sft", "dpo"]
Loss = Literal["per_token", "per_conversation"]
Quantization = Literal["nf4", "int8"]
# Of the QLoRA paper (arXiv 2305.14314, section 3): double quantization, products in bfloat16; and of LLM.int8().
_QUANTIZATIONS: Mapping[Quantization, Mapping[str, Any]] = {
    "nf4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
    },
    "int8": {"load_in_8bit": True},
}


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: trl's own fields in `trainer`, the rest stated once by the recipe.

    With peft's own fields in `peft` an adapter is trained, and the model stays as it is, with `quantization` in few
    bits. `loss` is that of `sft`: the
    mean over the tokens of a global batch, or over its conversations the mean of each. With `packing` the conversations
    of a micro-batch lie one behind the other in one row without padding, and none sees another. A checkpoint is saved
    at the latest after `checkpoint_minutes`.
    """

    trainer: Mapping[str, Any]
    global_batch_size: int
    seed: int
    world_size: int
    distributed_type: str
    use_cpu: bool
    kind: Kind = "sft"
    peft: Mapping[str, Any] | None = None
    loss: Loss = "per_token"
    packing: bool = False
    checkpoint_minutes: float = 30.0
    quantization: Quantization | None = None


def training_arguments(settings: TrainingSettings, num_rows: int, checkpoint_dir: Path) -> SFTConfig | DPOConfig:
    """trl's configuration from the recipe's fields, the batch arithmetic, and defaults that suit the device.

    The micro-batch is `per_device_train_batch_size` if stated, else the largest divisor of a rank's share of the global
    batch up to 32 sequences, which `choose_micro_batch` may lower; accumulation follows.
    """
    stated = dict(settings.trainer)
    share = settings.global_batch_size // settings.world_size
    limit = _MICRO_BATCH // (2 if settings.kind == "dpo" else 1)
    micro = stated.pop("per_device_train_batch_size", None) or largest_divisor(share, limit)
    steps = planned_steps(num_rows, settings.global_batch_size, stated)
    logging_steps = _in_steps(stated.pop("logging_steps", None), steps) or max(1, steps // 200)
    save_steps = _in_steps(stated.pop("save_steps", None), steps) or _round_up(
        math.ceil(steps / _CHECKPOINTS_PER_RUN), logging_steps
    )
    device_defaults = {"bf16": not settings.use_cpu, "dataloader_pin_memory": not settings.use_cpu}
    if not any(name in stated for name in CHECKPOINTING):
        device_defaults[CHECKPOINTING[0]] = not settings.use_cpu
    if settings.packing:
        stated = _packed(stated, use_cpu=settings.use_cpu)
    if settings.quantization is not None:
        stated = _quantized(stated, settings.quantization)
    builders: dict[Kind, Callable[..., SFTConfig | DPOConfig]] = {"sft": _sft_config, "dpo": _dpo_config}
    return builders[settings.kind](
        {**device_defaults, "report_to": "none", "disable_tqdm": True, **stated},
        output_dir=str(checkpoint_dir),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=settings.use_cpu,
        logging_steps=logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_steps,
    )


def _packed(stated: dict[str, Any], *, use_cpu: bool) -> dict[str, Any]:
    """Fields of a packed training: on a GPU with a kernel that computes each conversation's attention alone."""
    model = model_options(stated)
    if not use_cpu:
        kernel = "flash_attention_2" if is_flash_attn_2_available() else "flex_attention"
        model = {"attn_implementation": kernel, **model}
    # The rows are cut already; trl wants that said.
    return {**stated, "model_init_kwargs": model or None, "padding_free": True, "max_length": None}


def _quantized(stated: dict[str, Any], quantization: Quantization) -> dict[str, Any]:
    how = {"quant_method": "bitsandbytes", **_QUANTIZATIONS[quantization]}
    model = {**model_options(stated), "dtype": "bfloat16", "quantization_config": how}
    return {**stated, "model_init_kwargs": model}


def _sft_config(stated: dict[str, Any], **owned: Any) -> SFTConfig:
    # A cosine is what the paper and its public code train with [paper App. A].
    return SFTConfig(
        **{"lr_scheduler_type": "cosine", **stated}, **owned, dataset_kwargs={"skip_prepare_dataset": True}
    )


def _dpo_config(stated: dict[str, Any], **owned: Any) -> DPOConfig:
    # The pairs are cut already, and the reference is a stage of its own.
    cut = {"max_length": None, "precompute_ref_log_probs": True}
    return DPOConfig(**{"lr_scheduler_type": "linear", **stated, **cut}, **owned)


def planned_steps(num_rows: int, global_batch_size: int, trainer: Mapping[str, Any]) -> int:
    """Optimizer steps of the whole run; the last batch of an epoch may be smaller."""
    max_steps = int(trainer.get("max_steps") or 0)
    if max_steps > 0:
        return max_steps
    return max(1, math.ceil(math.ceil(num_rows / global_batch_size) * float(trainer.get("num_train_epochs", 3))))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)


def _in_steps(stated: float | None, steps: int) -> int:
    """trl takes a number of steps, or below 1 a share of the run; 0 when nothing is stated."""
    if stated is None:
        return 0
    return math.ceil(stated * steps) if stated < 1 else int(stated)


def _round_up(number: int, multiple: int) -> int:
    # The first loss logged after a resume is wrong unless checkpoints fall on logging steps.
    return math.ceil(number / multiple) * multiple
