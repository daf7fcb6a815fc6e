"""What a subset is made of: lengths, turns and sources of its rows, text beyond a limit, overlap with other subsets."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.as_text import message_text
from deita_train.selection.trace.trace_columns import QUANTILES

ROWS_PER_READ = 1000


@dataclass(frozen=True)
class Spread:
    """Mean and quantiles of a quantity; the quantiles are those at `QUANTILES`, linearly interpolated."""

    mean: float
    quantiles: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return self.quantiles[QUANTILES.index(0.5)]


def spread(values: np.ndarray) -> Spread:
    """Mean and quantiles of `[n]` numbers, at least one, in float64."""
    assert len(values), "no values"
    numbers = np.asarray(values, dtype=np.float64)
    return Spread(float(numbers.mean()), tuple(np.quantile(numbers, QUANTILES).tolist()))


def share_beyond(lengths: np.ndarray, max_length: int) -> float:
    """Share of the text that a training which cuts rows at `max_length` never sees.

    Args:
        lengths: `[n]` lengths of rows, at least one and not all 0.
        max_length: in the same unit, characters or tokens.

    Returns:
        From 0 to 1.
    """
    assert max_length >= 0, max_length
    counted = np.asarray(lengths, dtype=np.float64)
    assert counted.sum() > 0, "no text at all"
    return float(np.maximum(counted - max_length, 0).sum() / counted.sum())


def source_shares(sources: Iterable[str]) -> dict[str, float]:
    """The share of rows of each source, the largest first, ties by name; the shares sum to 1."""
    counted = Counter(sources)
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return {source: number / counted.total() for source, number in ordered}


def total_variation(shares: Mapping[str, float], other_shares: Mapping[str, float]) -> float:
    """Total variation distance of two mixes, half the sum of |p - q|: from 0 (equal) to 1 (nothing in common).

    That is the smallest share of the rows that would have to come from other sources to make the mixes equal.
    """
    names = {*shares, *other_shares}
    return sum(abs(shares.get(name, 0.0) - other_shares.get(name, 0.0)) for name in sorted(names)) / 2


def jaccard(subsets: Sequence[Set[str]]) -> np.ndarray:
    """Overlap of each pair of M sets of ids, rows in both over rows in either; 1 for two empty sets.

    Returns:
        `[M, M]` float64, symmetric, from 0 to 1.
    """
    return np.array([[_jaccard(a, b) for b in subsets] for a in subsets]).reshape(len(subsets), len(subsets))


def _jaccard(subset: Set[str], other: Set[str]) -> float:
    either = len(subset | other)
    return len(subset & other) / either if either else 1.0


def conversation_sizes(rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of N conversations, at least one.

    Reads the column `messages` in blocks, without a Python object for each message where all have nothing but a text.

    Returns:
        Characters over all messages as text, and user turns: two arrays `[N]` int64.
    """
    blocks = rows.select_columns("messages").with_format("arrow").iter(ROWS_PER_READ)
    characters, turns = zip(*(_sizes(block["messages"].combine_chunks()) for block in blocks), strict=True)
    return np.concatenate(characters), np.concatenate(turns)


def _sizes(conversations: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    messages = conversations.flatten()
    if not pa.types.is_struct(messages.type) or pc.any(pc.equal(messages.field("role"), "tool")).as_py():
        return _sizes_of_messages(conversations)
    characters = pc.utf8_length(messages.field("content")).to_numpy(zero_copy_only=False)
    is_user = pc.equal(messages.field("role"), "user").to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(conversations)), pc.list_value_length(conversations).to_numpy(zero_copy_only=False))
    sums = (np.bincount(row, weights=weights, minlength=len(conversations)) for weights in (characters, is_user))
    characters_per_row, turns_per_row = (total.astype(np.int64) for total in sums)
    return characters_per_row, turns_per_row


def _sizes_of_messages(conversations: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """The same of messages with tools, reasoning or other fields, as structs or JSON texts."""
    rows = [
        [json.loads(message) if isinstance(message, str) else message for message in messages]
        for messages in conversations.to_pylist()
    ]
    characters = [sum(len(message_text(message)) for message in messages) for messages in rows]
    turns = [sum(message["role"] == "user" for message in messages) for messages in rows]
    return np.array(characters, dtype=np.int64), np.array(turns, dtype=np.int64)
