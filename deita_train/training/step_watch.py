"""Throughput and losses of each optimizer step: real tokens, seconds, time spent waiting for data, losses by row."""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from deita_train.errors import UserError

# Columns of the prepared rows that are not model inputs.
BESIDE = ("id", "tokens")
RATES = ("tokens_per_second_per_device", "mfu", "memory_gib", "data_loading_share")
_NAMED = 10


@dataclass
class Rates:
    """What one rank did in a span of time, and its peak memory up to the end of that span."""

    seconds: float = 0.0
    seconds_for_data: float = 0.0
    tokens: int = 0
    memory_bytes: int = 0

    def add(self, later: "Rates") -> None:
        """Add a later span."""
        self.seconds += later.seconds
        self.seconds_for_data += later.seconds_for_data
        self.tokens += later.tokens
        self.memory_bytes = max(self.memory_bytes, later.memory_bytes)

    def numbers(self, flops_per_token: int | None, peak_flops: float | None) -> dict[str, float]:
        """Compute the rates to log.

        Args:
            flops_per_token: Training FLOPs per real token, if known.
            peak_flops: The device's peak FLOPs per second, if known.

        Returns:
            Real tokens per second, the share of time spent waiting for data, peak memory in GiB, and the MFU if both
            arguments are known. Empty if no time has passed.
        """
        if not self.seconds:
            return {}
        rate = self.tokens / self.seconds
        numbers = {
            "tokens_per_second_per_device": rate,
            "data_loading_share": self.seconds_for_data / self.seconds,
            "memory_gib": self.memory_bytes / 2**30,
        }
        if flops_per_token is not None and peak_flops is not None:
            numbers["mfu"] = rate * flops_per_token / peak_flops
        return numbers


def training_flops_per_token(model: Any) -> int | None:
    """Count the FLOPs of forward and backward for one real token, without recomputed activations.

    Each trained weight costs six, each frozen one four (two forward, two for the gradient that passes through it). The
    embedding table is a lookup and counts only if it is also the output head. As in 6 N, attention scores are left out.

    Returns:
        The count, or None for a mixture of experts, where a token uses only some of the weights.
    """
    config = model.config.get_text_config()
    if getattr(config, "num_experts_per_tok", None):
        return None
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    looked_up = None if head is not None and head.weight is table else table
    weights = [weight for weight in model.parameters() if weight is not looked_up]
    return sum((6 if weight.requires_grad else 4) * _size(weight) for weight in weights)


def _size(weight: torch.Tensor) -> int:
    # ZeRO-3 leaves an empty tensor that records its full size; a 4-bit weight packs two numbers into a byte.
    whole: int = getattr(weight, "ds_numel", weight.numel())
    return whole * 2 if type(weight).__name__ == "Params4bit" else whole


class StepWatch(TrainerCallback):
    """Follows one rank's training step by step, from the batches and losses that `OwnBatches` reports.

    `span` covers the time since the last log, `total` the whole training. A loss that is not finite ends the run at
    that step, before a checkpoint can store the damage, with an error that names the rows of the micro-batch.
    """

    def __init__(self) -> None:
        self.total, self.span, self._open = Rates(), Rates(), Rates()
        self._since: float | None = None
        self._rows: list[list[str]] = []
        self._losses: list[torch.Tensor] = []

    def fetched(self, seconds: float, rows: list[list[str]], tokens: int) -> None:
        """Record the micro-batches of the next step: the row ids of each, and the real tokens of all of them."""
        self._open.seconds_for_data += seconds
        self._open.tokens += tokens
        self._rows, self._losses = rows, []

    def trained(self, loss: torch.Tensor) -> None:
        """Record the loss of the step's next micro-batch."""
        self._losses.append(loss)

    def end_span(self) -> None:
        """End the current span, add it to the total, and start a new one."""
        self._count_time()
        self.span, self._open = self._open, Rates()
        self.total.add(self.span)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock before the first batch."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the step's losses and record the peak memory."""
        self._open.memory_bytes = peak_memory(args.device)
        # Once per step: reading the losses waits for the device.
        if not bool(torch.isfinite(torch.stack(self._losses)).all()):
            raise UserError(self._not_finite(state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Exclude the time spent saving."""
        self._since = time.perf_counter()

    def _count_time(self) -> None:
        if self._since is not None:
            now = time.perf_counter()
            self._open.seconds += now - self._since
            self._since = now

    def _not_finite(self, step: int) -> str:
        losses = [float(loss) for loss in self._losses]
        bad = [place for place, loss in enumerate(losses) if not math.isfinite(loss)]
        rows = self._rows[bad[0]]
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        return (
            f"the loss is {losses[bad[0]]} at step {step}, in {len(bad)} of {len(losses)} micro-batches of this rank; "
            f"the first of them has the rows {', '.join(rows[:_NAMED])}{more}. Look at them with `deita-train "
            "inspect`; where they are as they should be, training diverged: lower trainer.learning_rate or lengthen "
            "trainer.warmup_steps. The last checkpoint before it is kept."
        )


class Timed(Iterator[Any]):
    """An iterator that measures the seconds spent waiting for its items."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.seconds = 0.0

    def __next__(self) -> Any:
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - started


class KeepRows:
    """A collator that adds to each batch its rows' ids (`ids`) and their numbers of real tokens (`tokens`).

    Where there are no rows, the tensors are those of `stand_in`, and both lists are empty.
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]], stand_in: Mapping[str, Any]) -> None:
        self._collator = collator
        self._stand_in = stand_in

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate, and add plain lists that :func:`take_rows` removes again."""
        rows: list[Mapping[str, Any]] = [*examples] or [self._stand_in]
        bare = [{name: value for name, value in row.items() if name not in BESIDE} for row in rows]
        beside = {"ids": [row["id"] for row in examples], "tokens": [row["tokens"] for row in examples]}
        # After the tensors: accelerate reads the batch size from the first entry.
        return {**self._collator(bare), **beside}


def take_rows(batches: Sequence[dict[str, Any]]) -> tuple[list[list[str]], int]:
    """Remove from collated batches what :class:`KeepRows` added.

    Returns:
        The row ids of each batch, and the real tokens of all of them.
    """
    tokens = sum(sum(batch.pop("tokens")) for batch in batches)
    return [batch.pop("ids") for batch in batches], tokens


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of this process's tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
