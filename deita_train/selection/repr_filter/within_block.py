"""The rows of one block of the Repr Filter's walk among each other, and the paper's sequential step over them."""

import numpy as np
import torch

from deita_train.selection.repr_filter.exact_rows import ExactRows
from deita_train.selection.repr_filter.kept_rows import FLOAT32_DOUBT
from deita_train.selection.repr_filter.scratch import Scratch

# Rows of a block per product with the rest of the block.
ROWS_PER_STRIP = 128


def with_later(unit: torch.Tensor, rows: np.ndarray, scratch: Scratch) -> torch.Tensor:
    """Similarities ``[O, B]`` float32 of some rows of a block with the rows after each, -inf with the others.

    Taken in strips, each from its first row on, which leaves out most of the products that would not be used.

    Args:
        unit: ``[B, D]`` float32 unit vectors.
        rows: ``[O]`` int64, ascending.
        scratch: holds the result, which is valid until the next call with it.
    """
    found = scratch.take("within", (len(rows), len(unit)), unit.dtype, unit.device)
    for start in range(0, len(rows), ROWS_PER_STRIP):
        strip = rows[start : start + ROWS_PER_STRIP]
        first, last = int(strip[0]), int(strip[-1])
        found[start : start + len(strip), :first] = -torch.inf
        open_rows = scratch.take("strip", (len(strip), unit.shape[1]), unit.dtype, unit.device)
        torch.index_select(unit, 0, torch.from_numpy(strip).to(unit.device), out=open_rows)
        torch.mm(open_rows, unit[first:].T, out=found[start : start + len(strip), first:])
        not_later = torch.from_numpy(strip[:, None] >= np.arange(first, last + 1)).to(unit.device)
        found[start : start + len(strip), first : last + 1].masked_fill_(not_later, -torch.inf)
    return found


def sequential_step(rows: ExactRows, positions: np.ndarray, similarity: np.ndarray, threshold: float) -> np.ndarray:
    """Which rows are kept, as indices ``[K]``, one decided after the other.

    Args:
        rows: the pool.
        positions: ``[O]`` of rows that no row kept before the block rejects, in the order of the walk.
        similarity: ``[O, O]`` float32, of each with those after it, -inf elsewhere (``with_later``).
        threshold: tau.
    """
    keeps = np.ones(len(positions), dtype=bool)
    conflicts = _conflicts(rows, positions, similarity, threshold)
    for row in np.flatnonzero(conflicts.any(axis=0)):
        keeps[row] = not (conflicts[:, row] & keeps).any()
    return np.flatnonzero(keeps)


def _conflicts(rows: ExactRows, positions: np.ndarray, similarity: np.ndarray, threshold: float) -> np.ndarray:
    """``[O, O]`` bool: whether the exact cosine of a row and a later one is above the threshold."""
    if threshold >= 1:
        return np.zeros(similarity.shape, dtype=bool)
    conflicts = similarity > threshold - FLOAT32_DOUBT
    row, later = np.nonzero(conflicts)
    doubt = similarity[row, later] <= threshold + FLOAT32_DOUBT
    row, later = row[doubt], later[doubt]
    conflicts[row, later] = rows.cosines(positions[row], positions[later]) > threshold
    return conflicts


def rows_at(values: torch.Tensor, indices: np.ndarray) -> torch.Tensor:
    """The rows of ``values`` at ``indices`` of the CPU, wherever ``values`` are."""
    return values[torch.from_numpy(indices)]
