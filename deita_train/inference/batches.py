"""Batches by token budget, and how ranks share them.

Batches are planned once, from the lengths alone, so every world size computes the same ones.
"""

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# A batch of this many tokens keeps a device busy; beyond that, padding wastes more.
_BUSY_TOKENS = 4096
_MAX_PADDING_SHARE = 0.05
# The length at which attention costs as much per token as the matrix products: see `BatchPlan.cost`.
_ATTENTION_LENGTH = 24_576


@dataclass(frozen=True)
class BatchPlan:
    """The planned batches of one stage.

    Attributes:
        batches: positions of the rows of each batch.
        lengths: of each position's row, in tokens.
        max_batch_tokens: the budget they were planned for.
        facts: whatever else the preparation found out.
    """

    batches: list[list[int]]
    lengths: list[int]
    max_batch_tokens: int
    facts: dict[str, Any] = field(default_factory=dict)

    def tokens(self, number: int) -> int:
        """Number of tokens in a batch, without padding."""
        return sum(self.lengths[position] for position in self.batches[number])

    def cost(self, number: int) -> int:
        """The relative cost of a batch of B rows padded to T tokens: B x T x (24,576 + T).

        A layer of width D multiplies each token by about 12 D x D weights, and attention adds about 2 T D for its two
        products (half of it is masked, but kernels that are given a mask compute all of it). So attention costs T / 6D
        of the rest, and 6D is 24,576 at the width 4,096 of a 7B model.
        """
        longest = self.lengths[self.batches[number][0]]
        return len(self.batches[number]) * longest * (_ATTENTION_LENGTH + longest)


def plan_batches(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Group items so that rows x longest length stays within `max_batch_tokens`, longest items first.

    Items are sorted by (length descending, position), which keeps padding small. A batch that is large enough to keep a
    device busy also ends where another item would make more than a twentieth of it padding. An item longer than the
    budget gets its own batch.

    Returns:
        The positions in each batch; every position exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    batches: list[list[int]] = []
    tokens = 0
    for position in order:
        if batches and _fits(lengths[batches[-1][0]], len(batches[-1]), tokens, lengths[position], max_batch_tokens):
            batches[-1].append(position)
            tokens += lengths[position]
        else:
            batches.append([position])
            tokens = lengths[position]
    return batches


def fill_batches(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Group items as `plan_batches` does, but fill every batch: for generation, whose steps cost little more with rows.

    Returns:
        The positions in each batch, longest first; every position exactly once.
    """
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_batch_tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _fits(longest: int, rows: int, tokens: int, length: int, max_batch_tokens: int) -> bool:
    """Whether an item joins a batch with `tokens` real tokens."""
    computed = longest * (rows + 1)
    small = longest * rows < _BUSY_TOKENS
    return computed <= max_batch_tokens and (small or tokens + length >= (1 - _MAX_PADDING_SHARE) * computed)


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of computed tokens that are padding."""
    computed = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / computed if computed else 0.0


def share_batches(costs: Mapping[int, int], world_size: int) -> list[list[int]]:
    """The batches of each rank: the most expensive first, each to the rank with the least work so far.

    Depends only on the costs by number and the world size, so every rank gets the same answer. The busiest rank's cost
    is at most 4/3 of the optimum.
    """
    shares: list[list[int]] = [[] for _ in range(world_size)]
    loads = [(0, rank) for rank in range(world_size)]
    for number in sorted(costs, key=lambda number: (-costs[number], number)):
        load, rank = heapq.heappop(loads)
        shares[rank].append(number)
        heapq.heappush(loads, (load + costs[number], rank))
    return shares


def write_plan(path: Path, plan: BatchPlan) -> None:
    """Write the planned batches beside the prepared data."""
    path.write_text(json.dumps(asdict(plan)))


def read_plan(path: Path) -> BatchPlan:
    """Read the planned batches."""
    return BatchPlan(**json.loads(path.read_text()))
