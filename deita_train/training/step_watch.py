"""What each optimizer step took and gave: real tokens, seconds, the share of waiting for data, losses by row."""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from deita_train.errors import UserError

# Columns of the prepared rows that no model reads.
BESIDE = ("id", "tokens")
RATES = ("tokens_per_second_per_device", "mfu", "memory_gib", "data_loading_share")
_NAMED = 10


@dataclass
class Rates:
    """What one rank did in some seconds, and the most bytes that it had in use up to their end."""

    seconds: float = 0.0
    seconds_for_data: float = 0.0
    tokens: int = 0
    memory_bytes: int = 0

    def add(self, later: "Rates") -> None:
        """Count a later span of time too."""
        self.seconds += later.seconds
        self.seconds_for_data += later.seconds_for_data
        self.tokens += later.tokens
        self.memory_bytes = max(self.memory_bytes, later.memory_bytes)

    def numbers(self, flops_per_token: int | None, peak_flops: float | None) -> dict[str, float]:
        """Real tokens a second, the data's share of the time, GiB, and MFU where the device's peak is known.

        Empty when no time has passed.
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
    """FLOPs of forward and backward for one real token, recomputed activations not counted.

    Six for each trained weight that a token is multiplied with, four for each frozen one (two forward, two for the
    gradient that goes through it). The embedding table is looked up and counts only where it is the output head as
    well. Attention's own products are left out, as in 6 N. None for a mixture of experts, of whose weights a token
    meets only some.
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
    # ZeRO-3 leaves an empty tensor and its whole size beside it; a 4-bit weight holds two numbers in a byte.
    whole: int = getattr(weight, "ds_numel", weight.numel())
    return whole * 2 if type(weight).__name__ == "Params4bit" else whole


class StepWatch(TrainerCallback):
    """Follows one rank's training: what `OwnBatches` tells of batches and losses, step by step.

    `span` is the time since the last log, `total` all of it. A loss that is not finite ends the run at its step, before
    a checkpoint can keep it, and the rows of that micro-batch are named.
    """

    def __init__(self) -> None:
        self.total, self.span, self._open = Rates(), Rates(), Rates()
        self._since: float | None = None
        self._rows: list[list[str]] = []
        self._losses: list[torch.Tensor] = []

    def fetched(self, seconds: float, rows: list[list[str]], tokens: int) -> None:
        """A step's micro-batches are here: the ids of each one's rows, and the real tokens of all."""
        self._open.seconds_for_data += seconds
        self._open.tokens += tokens
        self._rows, self._losses = rows, []

    def trained(self, loss: torch.Tensor) -> None:
        """The loss of the next micro-batch of the step."""
        self._losses.append(loss)

    def end_span(self) -> None:
        """A new span begins, and the one that ends counts in the total."""
        self._count_time()
        self.span, self._open = self._open, Rates()
        self.total.add(self.span)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The clock runs from the first batch on."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the step's losses and at the memory."""
        self._open.memory_bytes = peak_memory(args.device)
        # One look a step: each waits for the device.
        if not bool(torch.isfinite(torch.stack(self._losses)).all()):
            raise UserError(self._not_finite(state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Saving is no training."""
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
    """An iterator, and the seconds that its items took to come."""

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
    """A collator that leaves in each batch its rows' ids, `ids`, and how many real tokens each has, `tokens`."""

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self._collator = collator

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The collator's batch with plain lists beside it; :func:`take_rows` takes them out again."""
        bare = [{name: value for name, value in row.items() if name not in BESIDE} for row in examples]
        beside = {"ids": [row["id"] for row in examples], "tokens": [row["tokens"] for row in examples]}
        # Behind the tensors: accelerate reads a batch's size from what comes first.
        return {**self._collator(bare), **beside}


def take_rows(batches: Sequence[dict[str, Any]]) -> tuple[list[list[str]], int]:
    """Take out of collated batches what :class:`KeepRows` put there: the ids of each, and the tokens of all."""
    tokens = sum(sum(batch.pop("tokens")) for batch in batches)
    return [batch.pop("ids") for batch in batches], tokens


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that this process's tensors took on its GPU so far; on a CPU, the process as a whole."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
