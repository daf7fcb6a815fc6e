"""What each micro-batch counts in its optimizer step, so that a step's loss is the mean over its global batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator


class StepShares:
    """The rows of the current step by rank and micro-batch, known to every rank.

    Trainers average over a micro-batch, then over the micro-batches of a rank and over the ranks. That is the mean over
    the global batch only if all micro-batches are equally large, which an epoch's rest is not. A mean over a
    micro-batch times its share counts every row once; for a full global batch the shares are exactly 1.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._rows: list[list[int]] = []
        self._loss_tokens: list[list[int]] = []
        self._place = 0
        self.tokens = 0

    def begin(self, rows: Sequence[int], loss_tokens: Sequence[int], tokens: int) -> None:
        """Begin a step. Every rank must call this.

        Args:
            rows: This rank's rows in each micro-batch; 0 where it only keeps the others company.
            loss_tokens: Its tokens with a loss in each micro-batch, for losses that are means over tokens.
            tokens: Its tokens in all of them.
        """
        mine = torch.tensor([*rows, *loss_tokens, tokens], device=self._accelerator.device)
        of_ranks = self._accelerator.gather(mine).reshape(self._accelerator.num_processes, -1).tolist()
        self._rows = [counts[: len(rows)] for counts in of_ranks]
        self._loss_tokens = [counts[len(rows) : -1] for counts in of_ranks]
        self._place = 0
        self.tokens = sum(counts[-1] for counts in of_ranks)

    def next_micro_batch(self) -> None:
        """Go on to the step's next micro-batch."""
        self._place += 1

    @property
    def is_done(self) -> bool:
        """Whether every micro-batch of the step has been trained on."""
        return self._place == len(self._rows[0])

    @property
    def of_rows(self) -> float:
        """The current micro-batch's share, for a mean over its rows."""
        return self._share(self._rows)

    @property
    def of_loss_tokens(self) -> float:
        """The same for a mean over its tokens with a loss."""
        return self._share(self._loss_tokens)

    def _share(self, counts: list[list[int]]) -> float:
        mine = counts[self._accelerator.process_index][self._place]
        return mine * len(counts) * len(counts[0]) / sum(map(sum, counts))

    def merged(self, values: Sequence[float]) -> list[float]:
        """Replace the last values, one for each micro-batch of the step, by their mean over the step's rows."""
        rows = [sum(of_ranks) for of_ranks in zip(*self._rows, strict=True)]
        mean = sum(count * value for count, value in zip(rows, values[-len(rows) :], strict=True)) / sum(rows)
        return [*values[: -len(rows)], mean]

    @contextmanager
    def gathering_rows(self) -> Iterator[None]:
        """Let the accelerator gather from ranks with different numbers of rows, none included.

        A tensor with a number for each row is gathered whole, a single number from each rank that has rows.
        """
        counts = [rows[self._place] for rows in self._rows]
        if len(set(counts)) == 1:
            yield
            return
        overridden = vars(self._accelerator)
        overridden["gather"] = partial(self._gather, self._accelerator.gather, counts)
        try:
            yield
        finally:
            del overridden["gather"]

    def _gather(self, gather: Callable[[Any], Any], counts: list[int], tensor: torch.Tensor) -> torch.Tensor:
        sizes = counts if tensor.dim() else [min(count, 1) for count in counts]
        size = sizes[self._accelerator.process_index]
        padded = tensor.new_zeros(max(sizes))
        padded[:size] = tensor.reshape(-1)[:size]
        parts = gather(padded).reshape(len(sizes), -1)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
