"""The order of rows in an epoch, determined by the seed and the epoch alone."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

# Rows are sorted within groups of this many batches: wide enough for little padding, narrow enough to mix.
BATCHES_PER_GROUP = 50


class EpochOrder(Sampler[int]):
    """Yields row positions in the order of the rows.

    Subclasses shuffle them. No order depends on the number of ranks or on the micro-batch, and a resumed run continues
    it.
    """

    def __init__(self, lengths: Sequence[int], global_batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._size = global_batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The trainer calls this before each one, also after a resume."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        yield from range(len(self._lengths))


class RandomOrder(EpochOrder):
    """Rows in random order: that of transformers' `random` sampler."""

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from torch.randperm(len(self._lengths), generator=generator).tolist()


class GroupedByLength(EpochOrder):
    """transformers' `group_by_length`, by global batches: those of a group stay sorted from long to short."""

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from get_length_grouped_indices(self._lengths, self._size, generator=generator)


class LengthGroupedBatches(EpochOrder):
    """Yields row positions such that each consecutive `global_batch_size` of them have similar lengths.

    transformers' `group_by_length` leaves the batches of a group sorted from long to short. If length correlates with
    the label, as in a complexity scorer's data, training then chases a drifting mean; here the batches are shuffled.
    Rows that do not fill a batch come last, and differ from epoch to epoch.
    """

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        num_full = len(order) // self._size * self._size
        batches = [batch for start in range(0, num_full, self._group) for batch in self._sorted(order, start, num_full)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[place]
        yield from order[num_full:]

    @property
    def _group(self) -> int:
        return self._size * BATCHES_PER_GROUP

    def _sorted(self, order: list[int], start: int, end: int) -> list[list[int]]:
        """The batches of one group, rows sorted by length."""
        rows = sorted(order[start : min(start + self._group, end)], key=lambda row: -self._lengths[row])
        return [rows[first : first + self._size] for first in range(0, len(rows), self._size)]


# By `trainer.train_sampling_strategy`; None where it is not stated.
ORDERS: dict[str | None, type[EpochOrder]] = {
    None: LengthGroupedBatches,
    "random": RandomOrder,
    "sequential": EpochOrder,
    "group_by_length": GroupedByLength,
}
