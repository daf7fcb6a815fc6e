"""Batch inference of one rank: batches computed in order, halved if memory is too small, kept in shards."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from deita_train.errors import UserError
from deita_train.inference.batches import BatchPlan
from deita_train.inference.shards import Columns, batch_table, write_shard
from deita_train.inference.speed import Speed

# After a batch of n tokens was too large, batches above this share of n are halved without trying.
_TRIED_SHARE = 0.75
# A fast pass over wide vectors would hold gigabytes by the time a shard is due; and a table of a few numbers takes some
# kilobytes.
_MOST_HELD = 1 << 26
_MOST_BATCHES_HELD = 4096


@dataclass
class Pass:
    """One pass of one rank.

    `compute` maps the positions of a batch to columns of equal length, one entry per position: float arrays [B] or
    [B, D]. `speed` counts what was computed, and `on_batch` is called after each batch. `part` names the shards of a
    pass that is made in parts.
    """

    plan: BatchPlan
    shard_dir: Path
    compute: Callable[[Sequence[int]], Columns]
    speed: Speed
    on_batch: Callable[[], None]
    flush_seconds: float = 20.0
    part: str = ""
    _limit_tokens: float = field(default=math.inf, init=False)

    def run(self, numbers: Iterable[int]) -> None:
        """Compute the batches of these numbers and keep them; a kill costs only what is not yet in a shard.

        Raises:
            UserError: a single row is too large for the memory.
        """
        pending: list[pa.Table] = []
        flushed, held = time.monotonic(), 0
        for number in numbers:
            pending.append(self._compute_batch(number))
            held += pending[-1].nbytes
            self.on_batch()
            is_due = time.monotonic() - flushed > self.flush_seconds
            if is_due or held > _MOST_HELD or len(pending) == _MOST_BATCHES_HELD:
                write_shard(self.shard_dir, pending, self.part)
                pending, flushed, held = [], time.monotonic(), 0
        write_shard(self.shard_dir, pending, self.part)

    def _compute_batch(self, number: int) -> pa.Table:
        positions = self.plan.batches[number]
        started = time.monotonic()
        columns, parts = self._compute(positions)
        self.speed.add(len(positions), self.plan.tokens(number), time.monotonic() - started)
        return batch_table(number, positions, columns, parts)

    def _compute(self, positions: Sequence[int]) -> tuple[Columns, int]:
        """The columns, and the number of pieces they were computed in."""
        tokens = len(positions) * max(self.plan.lengths[position] for position in positions)
        if len(positions) == 1 or tokens <= self._limit_tokens:
            try:
                return self.compute(positions), 1
            except torch.cuda.OutOfMemoryError:
                # Halved after this block: inside it, the exception keeps the failed attempt's tensors alive.
                self._limit_tokens = _TRIED_SHARE * tokens
            torch.cuda.empty_cache()
        if len(positions) == 1:
            raise self._too_large(positions[0])
        half = len(positions) // 2
        (first, before), (second, after) = self._compute(positions[:half]), self._compute(positions[half:])
        return {name: np.concatenate([first[name], second[name]]) for name in first}, before + after

    def _too_large(self, position: int) -> UserError:
        return UserError(
            f"a row of {self.plan.lengths[position]:,} tokens is too large for the GPU's memory even alone "
            f"(max_batch_tokens was {self.plan.max_batch_tokens:,}). Lower max_length, use dtype: bfloat16, or a GPU "
            "with more free memory."
        )
