"""Which rows each rank trains on in each micro-batch: every row once per epoch, in its global batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch.utils.data import Sampler


@dataclass(frozen=True)
class BatchShape:
    """How a global batch is divided.

    Attributes:
        global_batch_size: Rows of an optimizer step.
        ranks: Number of ranks.
        micro_batch: Most rows of a rank at once.
        drop_rest: Whether the rows of an epoch that do not fill a global batch are left out.
    """

    global_batch_size: int
    ranks: int
    micro_batch: int
    drop_rest: bool = False

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank in a full global batch."""
        return self.global_batch_size // (self.ranks * self.micro_batch)

    def num_micro_batches(self, num_rows: int) -> int:
        """Count the micro-batches of each rank in an epoch."""
        full, rest = divmod(num_rows, self.global_batch_size)
        return full * self.accumulation + (0 if self.drop_rest else self._micro_batches_of_rest(rest))

    def micro_batches(self, order: Sequence[int], rank: int) -> Iterator[list[int]]:
        """Yield a rank's micro-batches in an epoch.

        The ranks take turns in a full global batch, micro-batch by micro-batch. The rest of an epoch is spread evenly,
        first over the ranks and then over as few micro-batches as hold it. All ranks have equally many micro-batches,
        because they communicate in each; a rank that lacks a row for one has an empty list there.

        Args:
            order: The epoch's rows.
            rank: Whose micro-batches to yield.
        """
        size, micro = self.global_batch_size, self.micro_batch
        num_full = len(order) // size * size
        for start in range(rank * micro, num_full, self.ranks * micro):
            yield list(order[start : start + micro])
        if not self.drop_rest:
            rest = order[num_full:]
            yield from _spread(_spread(rest, self.ranks)[rank], self._micro_batches_of_rest(len(rest)))

    def _micro_batches_of_rest(self, rest: int) -> int:
        return -(-rest // (self.ranks * self.micro_batch))


def _spread(rows: Sequence[int], parts: int) -> list[list[int]]:
    """Cut rows into parts whose sizes differ by at most one, larger ones first."""
    if parts == 0:
        return []
    size, larger = divmod(len(rows), parts)
    starts = [part * size + min(part, larger) for part in range(parts + 1)]
    return [list(rows[start:end]) for start, end in pairwise(starts)]


class RankBatches(Sampler[list[int]]):
    """Yields one rank's micro-batches of an epoch, as lists of row positions.

    `sampler` gives the epoch's order. accelerate finds it under this name to set the epoch, also behind the wrapper
    that skips the first batches after a resume.
    """

    def __init__(self, sampler: Sampler[int], num_rows: int, shape: BatchShape, rank: int) -> None:
        self.sampler = sampler
        self._num_rows = num_rows
        self._shape = shape
        self._rank = rank

    def __len__(self) -> int:
        return self._shape.num_micro_batches(self._num_rows)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._shape.micro_batches(list(self.sampler), self._rank)
