"""Which kinds of kernels a GPU's time goes to."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# The first kind with a word that is in the kernel's name, in small letters.
_KINDS = (
    ("attention", ("flash", "fmha", "flex_attention", "sdpa", "attention")),
    ("matrix products", ("gemm", "cutlass", "nvjet", "cublas", "wgmma", "matmul", "_mm_")),
    ("optimizer", ("multi_tensor", "adam", "foreach")),
    ("copies", ("memcpy", "memset", "copy_")),
)
_REST = "norms, gates, rotations, casts"
_LISTED = 15


def kind_of(kernel: str) -> str:
    """To which kind of work a kernel of that name belongs."""
    name = kernel.lower()
    return next((kind for kind, words in _KINDS if any(word in name for word in words)), _REST)


def profiled(call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Seconds of a call, and the shares of these that each kind of kernel took; the log gets the longest kernels."""
    call()
    _synchronize(device)
    recording = Recording(device)
    recording.start()
    call()
    return recording.stop()


class Recording:
    """The kernels between `start` and `stop`. On a CPU only the time is taken."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._profile = profile(activities=[ProfilerActivity.CUDA]) if device.type == "cuda" else None
        self._started = 0.0

    def start(self) -> None:
        """Begin."""
        _synchronize(self._device)
        if self._profile is not None:
            try:
                self._profile.start()
            except RuntimeError as error:  # some virtual machines give no access to the counters
                print(f"no profile: {error}")
                self._profile = None
        self._started = time.perf_counter()

    def stop(self) -> dict[str, Any]:
        """End: `profiled_seconds`, and `shares` of them by kind of kernel, `idle` for the time without one."""
        _synchronize(self._device)
        seconds = time.perf_counter() - self._started
        if self._profile is None:
            return {"profiled_seconds": seconds, "shares": {}}
        self._profile.stop()
        averages = self._profile.key_averages()
        print(averages.table(sort_by="self_device_time_total", row_limit=_LISTED, max_name_column_width=90))
        shares: dict[str, float] = {}
        for entry in averages:
            if entry.device_type == DeviceType.CUDA:
                kind = kind_of(entry.key)
                shares[kind] = shares.get(kind, 0.0) + entry.self_device_time_total / 1e6 / seconds
        shares["idle"] = max(0.0, 1 - sum(shares.values()))
        return {"profiled_seconds": seconds, "shares": shares}


class ProfileStep(TrainerCallback):
    """Records the kernels of one optimizer step, by its number from 0; `found` is what `Recording.stop` gave."""

    def __init__(self, step: int, device: torch.device) -> None:
        self._step = step
        self._device = device
        self._recording: Recording | None = None
        self.found: dict[str, Any] = {}

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start before the step."""
        if state.global_step == self._step:
            self._recording = Recording(self._device)
            self._recording.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop behind it."""
        if self._recording is not None and not self.found:
            self.found = self._recording.stop()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
