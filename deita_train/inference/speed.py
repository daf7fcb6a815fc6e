"""Speed of batch inference: real tokens per second, and the share of the GPU's peak."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from deita_train.cost.gpus import named_peak


@dataclass
class Speed:
    """What one rank has computed since it started; `flops_per_token` and `peak_flops` are None if unknown."""

    flops_per_token: int | None = None
    peak_flops: float | None = None
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, rows: int, tokens: int, seconds: float) -> None:
        """Count a batch; `tokens` without padding."""
        self.rows += rows
        self.tokens += tokens
        self.seconds += seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Real tokens per second; None before the first batch."""
        return self.tokens / self.seconds if self.seconds else None

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization: the share of the device's peak used for the real tokens' matrix products."""
        rate = self.tokens_per_second
        if rate is None or self.flops_per_token is None or self.peak_flops is None:
            return None
        return rate * self.flops_per_token / self.peak_flops

    def __str__(self) -> str:
        rate = f"{self.tokens_per_second or 0:,.0f} tokens/s"
        return rate if self.mfu is None else f"{rate}, {self.mfu:.0%} of the GPU's peak"


def speed_metrics(speeds: Sequence[Speed]) -> dict[str, Any]:
    """The speed of all ranks together, over the slowest rank's seconds; rates are None if nothing was computed."""
    seconds = max(speed.seconds for speed in speeds)
    first = speeds[0]
    peak = None if first.peak_flops is None else first.peak_flops * len(speeds)
    together = Speed(first.flops_per_token, peak)
    together.add(0, sum(speed.tokens for speed in speeds), seconds)
    return {
        "seconds_computing": round(seconds, 3),
        "tokens_per_second": together.tokens_per_second,
        "mfu": together.mfu,
    }


def flops_per_token(model: PreTrainedModel) -> int | None:
    """Two for each weight of the trunk except the embedding table, which is looked up.

    None for a mixture of experts, where a token uses only some of the weights.
    """
    if getattr(model.config, "num_experts_per_tok", None):
        return None
    trunk: Any = model.base_model
    weights = sum(weight.numel() for weight in trunk.parameters())
    return 2 * (weights - trunk.get_input_embeddings().weight.numel())


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """A GPU's dense bfloat16 peak in FLOP/s by its data sheet; None for other dtypes, CPUs and unknown GPUs."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    return named_peak(torch.cuda.get_device_name(device))
