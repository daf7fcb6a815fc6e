"""Batches by token budget, and how ranks share them.

Batches are planned once, from the lengths alone, so every world size computes the same ones.
"""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

# A batch of this many tokens keeps a device busy; beyond that, padding wastes more.
_BUSY_TOKENS = 4096
_MAX_PADDING_SHARE = 0.05
# The length at which attention costs as much per token as the matrix products: see `BatchPlan.cost`.
_ATTENTION_LENGTH = 24_576
_NUMBERS_AT_ONCE = 1 << 16
# Begins the names of the facts that are arrays, in the file of a plan.
_FACT = "fact."


class Batches(Sequence[list[int]]):
    """The positions of the rows of each batch, held as two columns of numbers.

    Attributes:
        order: the positions batch by batch, int64 [N].
        starts: where in `order` each batch begins, and the end, int64 [B + 1].
    """

    def __init__(self, order: np.ndarray, starts: np.ndarray) -> None:
        self.order = order
        self.starts = starts

    @classmethod
    def of(cls, batches: Sequence[Sequence[int]]) -> "Batches":
        """The same from lists."""
        order = [position for batch in batches for position in batch]
        starts = np.cumsum([0, *map(len, batches)])
        return cls(np.array(order, np.int64), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, number: int) -> list[int]: ...
    @overload
    def __getitem__(self, number: slice) -> list[list[int]]: ...
    def __getitem__(self, number: int | slice) -> list[int] | list[list[int]]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        positions: list[int] = self.order[self.starts[number] : self.starts[number + 1]].tolist()
        return positions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def totals(self, values: np.ndarray) -> np.ndarray:
        """The sum of `values` [N] over each batch, int64 [B]."""
        return np.add.reduceat(values[self.order].astype(np.int64), self.starts[:-1]) if len(self) else _NO_NUMBERS

    def longest(self, lengths: np.ndarray) -> np.ndarray:
        """The length of each batch's first row, which is its longest, int64 [B]."""
        return lengths[self.order[self.starts[:-1]]].astype(np.int64)

    @property
    def sizes(self) -> np.ndarray:
        """The rows of each batch, int64 [B]."""
        return np.diff(self.starts)


_NO_NUMBERS = np.empty(0, np.int64)


@dataclass(frozen=True)
class BatchPlan:
    """The planned batches of one stage.

    Attributes:
        batches: positions of the rows of each batch.
        lengths: of each position's row, in tokens, int32 [N].
        max_batch_tokens: the budget they were planned for.
        facts: whatever else the preparation found out; what is JSON, and arrays.
    """

    batches: Batches
    lengths: np.ndarray
    max_batch_tokens: int
    facts: dict[str, Any] = field(default_factory=dict)

    def tokens(self, number: int) -> int:
        """Number of tokens in a batch, without padding."""
        return int(self._tokens[number])

    def cost(self, number: int) -> int:
        """The relative cost of a batch of B rows padded to T tokens: B x T x (24,576 + T).

        A layer of width D multiplies each token by about 12 D x D weights, and attention adds about 2 T D for its two
        products (half of it is masked, but kernels that are given a mask compute all of it). So attention costs T / 6D
        of the rest, and 6D is 24,576 at the width 4,096 of a 7B model.
        """
        return int(self._costs[number])

    @cached_property
    def _tokens(self) -> np.ndarray:
        return self.batches.totals(self.lengths)

    @cached_property
    def _costs(self) -> np.ndarray:
        longest = self.batches.longest(self.lengths)
        return self.batches.sizes * longest * (_ATTENTION_LENGTH + longest)


def plan_batches(lengths: Sequence[int] | np.ndarray, max_batch_tokens: int) -> Batches:
    """Group items so that rows x longest length stays within `max_batch_tokens`, longest items first.

    Items are sorted by (length descending, position), which keeps padding small. A batch that is large enough to keep a
    device busy also ends where another item would make more than a twentieth of it padding. An item longer than the
    budget gets its own batch.

    Returns:
        The positions in each batch; every position exactly once.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    starts: list[int] = []
    longest = tokens = 0
    for place, length in enumerate(_one_by_one(sizes[order])):
        if starts and _fits(longest, place - starts[-1], tokens, length, max_batch_tokens):
            tokens += length
        else:
            starts.append(place)
            longest = tokens = length
    return Batches(order, np.array([*starts, len(order)] if starts else [0], np.int64))


def plan_groups(lengths: np.ndarray, groups: np.ndarray, max_batch_tokens: int) -> Batches:
    """Group items as `plan_batches` does, but only items of one group, the batches of lower groups first.

    Args:
        lengths: `[N]`, of each item.
        groups: `[N]` int64, 0 or more.
        max_batch_tokens: as there.
    """
    by_group = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups)) if len(groups) else _NO_NUMBERS
    orders, starts, begin = [_NO_NUMBERS], [_NO_NUMBERS], 0
    for end in ends.tolist():
        members = by_group[begin:end]
        batches = plan_batches(lengths[members], max_batch_tokens)
        orders.append(members[batches.order])
        starts.append(begin + batches.starts[:-1])
        begin = end
    return Batches(np.concatenate(orders), np.concatenate([*starts, [begin]]))


def _one_by_one(numbers: np.ndarray) -> Iterator[int]:
    """The numbers as Python's, without holding all of them."""
    for start in range(0, len(numbers), _NUMBERS_AT_ONCE):
        yield from numbers[start : start + _NUMBERS_AT_ONCE].tolist()


def fill_batches(lengths: Sequence[int], max_batch_tokens: int) -> Batches:
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
    return Batches.of(batches)


def _fits(longest: int, rows: int, tokens: int, length: int, max_batch_tokens: int) -> bool:
    """Whether an item joins a batch with `tokens` real tokens."""
    computed = longest * (rows + 1)
    small = longest * rows < _BUSY_TOKENS
    return computed <= max_batch_tokens and (small or tokens + length >= (1 - _MAX_PADDING_SHARE) * computed)


def padding_share(lengths: np.ndarray, batches: Batches) -> float:
    """The share of computed tokens that are padding."""
    computed = int((batches.longest(lengths) * batches.sizes).sum())
    return 1 - int(lengths.sum(dtype=np.int64)) / computed if computed else 0.0


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


def batches_of_part(plan: BatchPlan, number: int, of: int) -> set[int]:
    """The numbers of the batches of part `number` of `of`, from 1: equal shares of the whole plan's cost."""
    costs = {batch: plan.cost(batch) for batch in range(len(plan.batches))}
    return {*share_batches(costs, of)[number - 1]}


def write_plan(path: Path, plan: BatchPlan) -> None:
    """Write the planned batches beside the prepared data."""
    arrays = {name: value for name, value in plan.facts.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in plan.facts.items() if name not in arrays}
    about = json.dumps({"max_batch_tokens": plan.max_batch_tokens, "facts": rest})
    columns: dict[str, Any] = {f"{_FACT}{name}": value for name, value in arrays.items()}
    columns |= {"order": plan.batches.order, "starts": plan.batches.starts, "lengths": plan.lengths}
    with path.open("wb") as file:
        np.savez(file, about=np.array(about), **columns)


def read_plan(path: Path) -> BatchPlan:
    """Read the planned batches."""
    with np.load(path) as found:
        about = json.loads(str(found["about"]))
        arrays = {name.removeprefix(_FACT): found[name] for name in found if name.startswith(_FACT)}
        batches = Batches(found["order"], found["starts"])
        return BatchPlan(batches, found["lengths"], about["max_batch_tokens"], {**about["facts"], **arrays})
