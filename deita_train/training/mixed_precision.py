"""The precision in which a training computes. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any, Literal

MixedPrecision = Literal["no", "bf16", "fp16"]


def stated_precision(trainer: Mapping[str, Any]) -> MixedPrecision | None:
    """Return what a recipe's trainer fields state; None if they leave it to the device."""
    if trainer.get("fp16"):
        return "fp16"
    if trainer.get("bf16") is None:
        return None
    return "bf16" if trainer["bf16"] else "no"


def precision_of(trainer: Mapping[str, Any], *, use_cpu: bool) -> MixedPrecision:
    """Return the precision of a training: as stated, else bfloat16 on a GPU and float32 on a CPU."""
    return stated_precision(trainer) or ("no" if use_cpu else "bf16")
