"""Whether computing in bfloat16 on this CPU is worth it: CPUs without instructions for it can be 100 times slower."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch

from deita_train.errors import UserError

# At 1 GFLOP/s, which a CPU without bfloat16 instructions reaches, one product takes a quarter of a second.
_WIDTH = 512
_MAX_SLOWDOWN = 2.0
_MAX_EXTRA_SECONDS = 60.0
# Less than a minute's work at the slowest rate seen, 0.9 GFLOP/s: not worth the second of measuring.
_NEVER_SLOW = 5e10
# Beside other work one product can take several times as long as the next: the fastest of these seconds counts.
_MEASURED_SECONDS = 0.3
# What to state instead.
OF_A_PASS = "State dtype: float32, or run it on a GPU."
OF_A_TRAINING = "Leave out trainer.bf16 and a bfloat16 dtype in trainer.model_init_kwargs, or train on a GPU."


@dataclass(frozen=True)
class ProductRates:
    """FLOP/s of a 512 x 512 matrix product in either precision, measured on this machine."""

    float32: float
    bfloat16: float

    @property
    def slowdown(self) -> float:
        """How many times longer a product takes in bfloat16 than in float32."""
        return self.float32 / self.bfloat16

    def extra_seconds(self, flops: float) -> float:
        """How much longer `flops` operations take in bfloat16 than in float32, in seconds."""
        return flops / self.bfloat16 - flops / self.float32


@cache
def product_rates() -> ProductRates:
    """Measure both products, once per process; takes about a second where bfloat16 is slowest."""
    return ProductRates(_rate(torch.float32), _rate(torch.bfloat16))


def _rate(dtype: torch.dtype) -> float:
    factor = torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    product = torch.empty_like(factor)
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < _MEASURED_SECONDS:  # the first one also sets the kernel up
        started = time.perf_counter()
        torch.mm(factor, factor, out=product)
        seconds.append(time.perf_counter() - started)
    return 2 * _WIDTH**3 / min(seconds)


def slow_bfloat16() -> str | None:
    """Why bfloat16 is not worth it on this CPU, with the measured ratio; None if it is."""
    rates = product_rates()
    if rates.slowdown <= _MAX_SLOWDOWN:
        return None
    return f"on this CPU a matrix product in bfloat16 takes {rates.slowdown:,.0f} times as long as in float32"


def refuse_slow_bfloat16(flops: float, advice: str) -> None:
    """Refuse work in bfloat16 on this CPU if float32 would save more than a minute and half of the time.

    Args:
        flops: operations of the whole work.
        advice: what to state instead, the end of the message.

    Raises:
        UserError: with the measured ratio and both estimated times.
    """
    if flops < _NEVER_SLOW:
        return
    reason, rates = slow_bfloat16(), product_rates()
    if reason is not None and rates.extra_seconds(flops) > _MAX_EXTRA_SECONDS:
        raise UserError(
            f"{reason}, so this would take at least {_duration(flops / rates.bfloat16)} instead of "
            f"{_duration(flops / rates.float32)}. {advice}"
        )


def slow_stages(work: Iterable[tuple[str, float, bool]]) -> list[str]:
    """The refusals of stages that compute in bfloat16: of each its label, its operations, and whether it trains."""
    found = []
    for label, flops, trains in work:
        try:
            refuse_slow_bfloat16(flops, OF_A_TRAINING if trains else OF_A_PASS)
        except UserError as error:
            found.append(f"{label}: {error}")
    return found


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{max(seconds / 60, 0.1):.1f} minutes"
