"""What a subset is made of: lengths, turns and sources of its rows, text beyond a limit, and the overlap of subsets."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.selection.trace.trace_columns import QUANTILES

ROWS_PER_READ = 1000


@dataclass(frozen=True)
class Spread:
    """Mean and quantiles of a quantity; ``quantiles`` are those at ``methods.QUANTILES``, linearly interpolated."""

    mean: float
    quantiles: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return self.quantiles[QUANTILES.index(0.5)]


def spread(values: np.ndarray) -> Spread:
    """Mean and quantiles of ``[n]`` numbers, at least one, in float64."""
    assert len(values), "the spread of no value"
    numbers = np.asarray(values, dtype=np.float64)
    return Spread(float(numbers.mean()), tuple(np.quantile(numbers, QUANTILES).tolist()))


def share_beyond(lengths: np.ndarray, max_length: int) -> float:
    """Share of the text of ``[n]`` rows, at least one and not all empty, that lies beyond their first ``max_length``.

    Lengths and limit are in one unit, characters or tokens. From 0 to 1: what a training that cuts at the limit never
    sees.
    """
    assert max_length >= 0, max_length
    counted = np.asarray(lengths, dtype=np.float64)
    assert counted.sum() > 0, "no text at all"
    return float(np.maximum(counted - max_length, 0).sum() / counted.sum())


def source_shares(sources: Sequence[str]) -> dict[str, float]:
    """The share of rows of each source, the largest first, equal ones by name; the shares sum to 1."""
    counts = sorted(Counter(sources).items(), key=lambda item: (-item[1], item[0]))
    return {source: number / len(sources) for source, number in counts}


def total_variation(shares: Mapping[str, float], other_shares: Mapping[str, float]) -> float:
    """Total variation distance of two mixes, half the sum of |p - q|: from 0 (alike) to 1 (nothing in common).

    The least share of the rows that would have to come from other sources for the mixes to be alike.
    """
    names = {*shares, *other_shares}
    return sum(abs(shares.get(name, 0.0) - other_shares.get(name, 0.0)) for name in sorted(names)) / 2


def jaccard(subsets: Sequence[Set[str]]) -> np.ndarray:
    """Overlap of M sets of ids, rows in both over rows in either: ``[M, M]`` float64, symmetric, in [0, 1].

    1 on the diagonal, and for two empty sets.
    """
    return np.array([[_jaccard(a, b) for b in subsets] for a in subsets]).reshape(len(subsets), len(subsets))


def _jaccard(subset: Set[str], other: Set[str]) -> float:
    either = len(subset | other)
    return len(subset & other) / either if either else 1.0


def conversation_sizes(rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Characters over all messages, and user turns, of each of N conversations, at least one: two ``[N]`` int64.

    Reads the column ``messages`` in blocks, without a Python object for each message.
    """
    blocks = rows.select_columns("messages").with_format("arrow").iter(ROWS_PER_READ)
    characters, turns = zip(*(_sizes(block["messages"].combine_chunks()) for block in blocks), strict=True)
    return np.concatenate(characters), np.concatenate(turns)


def _sizes(conversations: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    messages = conversations.flatten()
    characters = pc.utf8_length(messages.field("content")).to_numpy(zero_copy_only=False)
    is_user = pc.equal(messages.field("role"), "user").to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(conversations)), pc.list_value_length(conversations).to_numpy(zero_copy_only=False))
    sums = (np.bincount(row, weights=weights, minlength=len(conversations)) for weights in (characters, is_user))
    characters_per_row, turns_per_row = (total.astype(np.int64) for total in sums)
    return characters_per_row, turns_per_row
