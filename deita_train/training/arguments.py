"""Training settings from the recipe, and the trl configuration built from them."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers.utils import is_flash_attn_2_available
from trl import DPOConfig, SFTConfig

from deita_train.training.defaults import DPO_DEFAULTS, SFT_DEFAULTS
from deita_train.training.mixed_precision import MixedPrecision, precision_of
from deita_train.training.sizes import model_options

# Checkpoints per run, unless the recipe states `save_steps`; a kill costs at most one interval.
_CHECKPOINTS_PER_RUN = 5
# What the installed transformers calls activation checkpointing: some versions know one name, later ones both.
CHECKPOINTING = [
    name for name in ("activation_checkpointing", "gradient_checkpointing") if name in SFTConfig.__dataclass_fields__
]
# Most sequences per micro-batch, unless the recipe states it; a preference pair is two.
_MICRO_BATCH = 32

Kind = Literal["sft", "dpo"]
Loss = Literal["per_token", "per_conversation"]
Quantization = Literal["nf4", "int8"]
# nf4 as in the QLoRA paper (arXiv 2305.14314, section 3), with products in bfloat16; int8 is LLM.int8().
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
    """How to train.

    Attributes:
        trainer: trl's own fields, as the recipe states them.
        global_batch_size: Conversations, or pairs, per optimizer step.
        seed: Seed of the data order, of dropout and of an adapter's initial weights.
        world_size: Number of ranks.
        distributed_type: accelerate's name for the launch.
        use_cpu: Whether to train on the CPU.
        kind: SFT or DPO.
        peft: Fields of `LoraConfig`; with them an adapter is trained and the model stays as it is.
        loss: For SFT, the mean over the tokens of a global batch, or over its conversations' means.
        packing: Concatenate the conversations of a micro-batch into one row without padding; none sees another.
        checkpoint_minutes: Save a checkpoint at the latest after this time.
        quantization: Load the frozen base model in few bits.
        mixed_precision: The precision to compute in; None for what the trainer fields and the device give.
        check_logits: Before training, compare what is trained with the model's own logits on one row; for a model
            whose architecture could not be tried on a tiny copy. Where ranks share its weights it is left out.
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
    mixed_precision: MixedPrecision | None = None
    check_logits: bool = False


def training_arguments(settings: TrainingSettings, num_rows: int, checkpoint_dir: Path) -> SFTConfig | DPOConfig:
    """Build trl's configuration from the recipe's fields, with defaults for the device.

    The micro-batch is `per_device_train_batch_size` if stated, otherwise the largest divisor of a rank's share of the
    global batch up to 32 sequences, which `choose_micro_batch` may lower. Accumulation follows from it.
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
    precision = settings.mixed_precision or precision_of(stated, use_cpu=settings.use_cpu)
    # With neither bf16 nor fp16, transformers would follow this variable, in which a launch file's value arrives.
    os.environ["ACCELERATE_MIXED_PRECISION"] = precision
    stated |= {"bf16": precision == "bf16", "fp16": precision == "fp16"}
    device_defaults = {"dataloader_pin_memory": not settings.use_cpu}
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
    """Add the fields for packing; on a GPU, with a kernel that computes each conversation's attention separately."""
    model = model_options(stated)
    if not use_cpu:
        kernel = "flash_attention_2" if is_flash_attn_2_available() else "flex_attention"
        model = {"attn_implementation": kernel, **model}
    # The rows are truncated already; trl requires this to be explicit.
    return {**stated, "model_init_kwargs": model or None, "padding_free": True, "max_length": None}


def _quantized(stated: dict[str, Any], quantization: Quantization) -> dict[str, Any]:
    how = {"quant_method": "bitsandbytes", **_QUANTIZATIONS[quantization]}
    model = {**model_options(stated), "dtype": "bfloat16", "quantization_config": how}
    return {**stated, "model_init_kwargs": model}


def _sft_config(stated: dict[str, Any], **owned: Any) -> SFTConfig:
    return SFTConfig(**{**SFT_DEFAULTS, **stated}, **owned, dataset_kwargs={"skip_prepare_dataset": True})


def _dpo_config(stated: dict[str, Any], **owned: Any) -> DPOConfig:
    # The pairs are truncated already, and the reference is computed by its own stage.
    cut = {"max_length": None, "precompute_ref_log_probs": True}
    return DPOConfig(**{**DPO_DEFAULTS, **stated, **cut}, **owned)


def planned_steps(num_rows: int, global_batch_size: int, trainer: Mapping[str, Any]) -> int:
    """Count the optimizer steps of the whole run; the last batch of an epoch may be smaller, or is left out."""
    max_steps = int(trainer.get("max_steps") or 0)
    if max_steps > 0:
        return max_steps
    full, rest = divmod(num_rows, global_batch_size)
    steps = full if trainer.get("dataloader_drop_last") else full + (rest > 0)
    return max(1, math.ceil(steps * float(trainer.get("num_train_epochs", 3))))


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)


def _in_steps(stated: float | None, steps: int) -> int:
    """Convert trl's value, a number of steps or a share of the run below 1, to steps; 0 if nothing is stated."""
    if stated is None:
        return 0
    return math.ceil(stated * steps) if stated < 1 else int(stated)


def _round_up(number: int, multiple: int) -> int:
    # The first loss logged after a resume is wrong unless checkpoints coincide with logging steps.
    return math.ceil(number / multiple) * multiple
