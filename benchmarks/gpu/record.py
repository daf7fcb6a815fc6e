"""One JSON line for each thing measured, on disk before the next one starts."""

import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

RESULTS = "results.jsonl"
OK, FAILED, SKIPPED, NO_MEMORY, TIMED_OUT = "ok", "failed", "skipped", "out of memory", "timed out"
WHOLE_PART = "the part"
FIELDS = (
    "part", "what", "status", "reason", "shape", "tokens_per_second", "mfu", "share_of_product", "product_tflops",
    "peak_memory_gib", "seconds", "details", "versions", "device", "dry_run", "command", "date",
)  # fmt: skip
_PACKAGES = (
    "torch", "triton", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "bitsandbytes",
    "liger-kernel", "flash-attn",
)  # fmt: skip
_PRODUCT_SIZE = {"cuda": 8192, "cpu": 256}


class UnavailableError(Exception):
    """Something that a row needs is not on this machine: the row is skipped, with this reason."""


@dataclass(frozen=True)
class Figures:
    """What a row measured; `flops_per_token` is None where no share of a peak can be given."""

    tokens_per_second: float | None = None
    flops_per_token: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def line(part: str, what: str, status: str, **known: Any) -> dict[str, Any]:
    """A result with every field; those not given are None, or empty."""
    filled: dict[str, Any] = {**dict.fromkeys(FIELDS), "shape": {}, "details": {}}
    filled |= {
        "part": part,
        "what": what,
        "status": status,
        "versions": versions(),
        "command": os.environ.get("GPU_COMMAND", "benchmarks/gpu.sh"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **known,
    }
    assert set(filled) == set(FIELDS), set(filled) ^ set(FIELDS)
    return filled


def write_line(out: Path, result: Mapping[str, Any]) -> None:
    """Append a result to the folder's file and wait until it is on disk: the part may be killed at any time."""
    with (out / RESULTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
        file.flush()
        os.fsync(file.fileno())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the figures, those that are installed; imports none."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def require(module: str) -> None:
    """Raise :class:`UnavailableError` unless a module is installed."""
    if importlib.util.find_spec(module) is None:
        raise UnavailableError(f"{module} is not installed")


class Recorder:
    """Measures the rows of one part and writes them down.

    Args:
        part: the part's name.
        out: the folder of the results.
        dry_run: miniature shapes on a CPU.
        seconds: the part's time limit.
        console: where a short line for each row goes, beside the log.
    """

    def __init__(self, part: str, out: Path, *, dry_run: bool, seconds: float, console: TextIO) -> None:
        import torch

        if not dry_run and not torch.cuda.is_available():
            raise UnavailableError("no CUDA device; --dry-run runs miniature shapes on a CPU")
        self.part, self.out, self.dry_run = part, out, dry_run
        self.device = torch.device("cpu" if dry_run else "cuda")
        self.dtype = torch.float32 if dry_run else torch.bfloat16
        self._device_name = f"CPU {platform.machine()}" if dry_run else torch.cuda.get_device_name()
        self.num_failed = 0
        self._console = console
        self._ends = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Until the part is killed."""
        return self._ends - time.monotonic()

    @cached_property
    def product(self) -> float:
        """FLOP/s of a large matrix product in the part's dtype, measured once in this process."""
        from passes import measured_product

        return measured_product(self.device.type, self.dtype, _PRODUCT_SIZE[self.device.type])

    @cached_property
    def peak(self) -> float | None:
        """The datasheet's FLOP/s, None where it is not known."""
        from deita_train.inference.speed import peak_flops

        return peak_flops(self.device, self.dtype)

    def measure(
        self, what: str, shape: Mapping[str, Any], call: Callable[[], Figures], needs_seconds: float = 0.0
    ) -> Figures | None:
        """Measure one row and write it down, whatever happens; None unless it went well.

        `needs_seconds` is a guess at how long the row takes: with less time left it is skipped.
        """
        import torch

        assert self.product > 0  # measured now, so that no row's time or memory holds it
        self._forget()
        started = time.monotonic()
        figures, status, reason = None, OK, None
        try:
            if self.seconds_left < needs_seconds:
                raise UnavailableError(f"{self.seconds_left:.0f} s left, about {needs_seconds:.0f} wanted")
            figures = call()
        except UnavailableError as error:
            status, reason = SKIPPED, str(error)
        except torch.OutOfMemoryError as error:
            status, reason = NO_MEMORY, str(error).partition("\n")[0]
        except Exception as error:  # the next row may still work
            traceback.print_exc()
            status, reason = FAILED, f"{type(error).__name__}: {error}"[:500]
            self.num_failed += 1
        seconds = time.monotonic() - started
        known = {"reason": reason, "shape": dict(shape), "seconds": seconds, **self._measured(figures or Figures())}
        self._write(self._line(what, status, **known))
        return figures

    def _forget(self) -> None:
        """Give back what the row before left, so that memory and its peak are this row's own."""
        import torch

        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            print(f"{torch.cuda.memory_allocated() / 2**30:.2f} GiB in use before the next row")

    def note(self, what: str, status: str, reason: str | None, seconds: float) -> None:
        """Write down a row that something else has carried out, without figures."""
        self.num_failed += status == FAILED
        self._write(self._line(what, status, reason=reason, seconds=seconds))

    def _measured(self, figures: Figures) -> dict[str, Any]:
        """The fields that follow from figures and from the device as it is now."""
        from deita_train.training.step_watch import peak_memory

        rate, flops = figures.tokens_per_second, figures.flops_per_token
        reached = None if rate is None or flops is None else rate * flops
        return {
            "tokens_per_second": rate,
            "mfu": None if reached is None or self.peak is None else reached / self.peak,
            "share_of_product": None if reached is None else reached / self.product,
            "product_tflops": self.product / 1e12,
            "peak_memory_gib": peak_memory(self.device) / 2**30,
            "details": dict(figures.details),
        }

    def _line(self, what: str, status: str, **known: Any) -> dict[str, Any]:
        return line(self.part, what, status, device=self._device_name, dry_run=self.dry_run, **known)

    def _write(self, result: Mapping[str, Any]) -> None:
        write_line(self.out, result)
        self._console.write(short(result) + "\n")


def short(result: Mapping[str, Any]) -> str:
    """A result as one line for a person."""
    words = [f"{result['part']}: {result['what']}: {result['status']}"]
    if result["tokens_per_second"]:
        words.append(f"{result['tokens_per_second']:,.0f} tokens/s")
    if result["mfu"]:
        words.append(f"{result['mfu']:.1%} MFU")
    if result["seconds"] is not None:
        words.append(f"{result['seconds']:.1f} s")
    return ", ".join(words) + (f" ({result['reason']})" if result["reason"] else "")
