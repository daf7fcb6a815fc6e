"""The rows that the Repr Filter has kept, this process's share of them, and the nearest of them to any rows.

On several ranks the kept rows are dealt out by turns, the one of selection rank r to rank r modulo the number of ranks.
Each rank multiplies every block with its own share. What the ranks exchange depends neither on D nor on how many rows
are kept: three numbers for each row of a block, twice (``Nearest``), and its exact cosine, 56 bytes for each row seen.
Dealing out the candidates instead would exchange about as much and divide the products as evenly, but every rank would
have to hold all kept rows and to add each new one; this way a rank's memory shrinks with the number of ranks, and the
turns keep the shares even at every point of the walk. What all ranks repeat, reading a block and multiplying its open
rows with each other, does not grow with the number of kept rows.
"""

from dataclasses import dataclass

import numpy as np
import torch

from deita_train.selection.repr_filter.exact_rows import ExactRows
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.scratch import Scratch

# A similarity from a float32 product is taken to be within half of this of the exact cosine.
FLOAT32_DOUBT = 1e-5
# Kept rows per matrix product: one piece of memory each, so that nothing is copied when there are more.
KEPT_PER_PRODUCT = 4096


@dataclass(frozen=True)
class Nearest:
    """Of each of B rows by float32 products: the highest similarity, the next one, the selection rank of the highest.

    Attributes:
        similarity: ``[B]`` float64, -inf where no row is kept.
        runner_up: ``[B]`` float64, -inf where fewer than two are kept.
        rank: ``[B]`` int64, -1 where no row is kept.
    """

    similarity: np.ndarray
    runner_up: np.ndarray
    rank: np.ndarray

    @classmethod
    def none(cls, num_rows: int) -> "Nearest":
        """For rows before which nothing is kept."""
        lowest = np.full(num_rows, -np.inf)
        return cls(lowest, lowest, np.full(num_rows, -1, dtype=np.int64))

    @classmethod
    def among(cls, similarity: torch.Tensor, ranks: np.ndarray) -> "Nearest":
        """From similarities ``[B, K]`` float32 (overwritten) to K rows of the selection ranks ``ranks``, K >= 1."""
        # On a CPU numpy finds the column several times faster.
        on_cpu = similarity.device.type == "cpu"
        column = torch.from_numpy(similarity.numpy().argmax(axis=1)) if on_cpu else similarity.argmax(dim=1)
        highest = similarity.gather(1, column[:, None])[:, 0]
        runner_up = similarity.scatter_(1, column[:, None], -torch.inf).amax(dim=1)
        values = torch.stack([highest, runner_up]).cpu().numpy().astype(np.float64)
        return cls(values[0], values[1], np.where(np.isneginf(values[0]), -1, ranks[column.cpu().numpy()]))

    def __getitem__(self, rows: slice) -> "Nearest":
        return Nearest(self.similarity[rows], self.runner_up[rows], self.rank[rows])

    def merge(self, other: "Nearest") -> "Nearest":
        """Over the kept rows of both."""
        lower = np.minimum(self.similarity, other.similarity)
        return Nearest(
            np.maximum(self.similarity, other.similarity),
            np.maximum(lower, np.maximum(self.runner_up, other.runner_up)),
            np.where(other.similarity > self.similarity, other.rank, self.rank),
        )

    def over_ranks(self, group: Group) -> "Nearest":
        """Over the shares of all ranks: the same on each of them."""
        if group.size == 1:
            return self
        values = group.gather(np.stack([self.similarity, self.runner_up, self.rank.astype(np.float64)]))
        merged = Nearest.none(len(self.rank))
        for similarity, runner_up, rank in values:
            merged = merged.merge(Nearest(similarity, runner_up, rank.astype(np.int64)))
        return merged

    def tied(self) -> np.ndarray:
        """Rows ``[B]`` bool for which float32 cannot say which kept row is the nearest."""
        return self.runner_up >= self.similarity - FLOAT32_DOUBT


class KeptRows:
    """Unit vectors of this rank's share of the kept rows, in float32 on ``device``, and the positions of all."""

    def __init__(self, rows: ExactRows, device: torch.device | str, group: Group) -> None:
        self._rows = rows
        self._device = device
        self._group = group
        self._pieces: list[torch.Tensor] = []
        self._num_own = 0
        self._scratch = Scratch()
        self.positions = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.positions)

    def is_own(self, ranks: np.ndarray) -> np.ndarray:
        """Which of these selection ranks are in this rank's share."""
        return ranks % self._group.size == self._group.rank

    def add(self, positions: np.ndarray, unit: torch.Tensor) -> None:
        """Keep the rows at ``positions`` ``[K]``, whose unit vectors ``[K, D]`` are on the device."""
        ranks = len(self) + np.arange(len(positions))
        self.positions = np.concatenate([self.positions, positions])
        own = unit[torch.from_numpy(self.is_own(ranks)).to(unit.device)]
        while len(own):
            filled = self._num_own % KEPT_PER_PRODUCT
            if filled == 0:
                shape = (KEPT_PER_PRODUCT, unit.shape[1])
                self._pieces.append(torch.empty(shape, dtype=torch.float32, device=self._device))
            fitting = own[: KEPT_PER_PRODUCT - filled]
            self._pieces[-1][filled : filled + len(fitting)] = fitting
            self._num_own += len(fitting)
            own = own[len(fitting) :]

    def nearest(self, unit: torch.Tensor) -> Nearest:
        """The nearest of this rank's share to each row of ``unit`` ``[B, D]``, by float32 products."""
        nearest = Nearest.none(len(unit))
        for number in range(len(self._pieces)):
            similarity, ranks = self._similarities(unit, number)
            nearest = nearest.merge(Nearest.among(similarity, ranks))
        return nearest

    def nearest_exactly(
        self, unit: torch.Tensor, positions: np.ndarray, highest: np.ndarray, num_before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The exact cosine ``[T]`` float64 to the nearest kept row, and its selection rank ``[T]`` int64.

        Of equals the one kept first. The kept rows whose float32 similarity is within 1e-5 of the highest are compared:
        the nearest is among them, because neither similarity is off by more than half of that.

        Args:
            unit: ``[T, D]`` float32 unit vectors on the device.
            positions: ``[T]`` of the same rows in the pool.
            highest: ``[T]`` float64, float32's highest similarity over all ranks.
            num_before: ``[T]`` int64, how many rows were kept before each: the later ones do not count.
        """
        cosine, rank = np.full(len(unit), -np.inf), np.full(len(unit), len(self), dtype=np.int64)
        for number in range(len(self._pieces)):
            similarity, ranks = self._similarities(unit, number)
            near = similarity.cpu().numpy() >= (highest - FLOAT32_DOUBT)[:, None]
            row, column = np.nonzero(near & (ranks < num_before[:, None]))
            found = self._rows.cosines(positions[row], self.positions[ranks[column]])
            _raise_to(cosine, rank, row, found, ranks[column])
        cosines, ranks = self._group.gather(cosine), self._group.gather(rank)
        best = np.lexsort((ranks, -cosines), axis=0)[0]
        every = np.arange(len(unit))
        return cosines[best, every], ranks[best, every]

    def _similarities(self, unit: torch.Tensor, number: int) -> tuple[torch.Tensor, np.ndarray]:
        """Float32 similarities ``[B, K]`` to the rows of one piece, and the selection ranks ``[K]`` of these.

        The similarities are valid until the next call.
        """
        first = number * KEPT_PER_PRODUCT
        filled = min(KEPT_PER_PRODUCT, self._num_own - first)
        ranks = (first + np.arange(filled)) * self._group.size + self._group.rank
        similarity = self._scratch.take("similarity", (len(unit), filled), unit.dtype, unit.device)
        return torch.mm(unit, self._pieces[number][:filled].T, out=similarity), ranks


def _raise_to(cosine: np.ndarray, rank: np.ndarray, row: np.ndarray, found: np.ndarray, ranks: np.ndarray) -> None:
    """Let each entry of ``cosine`` and ``rank`` be the best of itself and what was ``found`` for its row."""
    order = np.lexsort((ranks, -found, row))
    first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
    better = (found[first] > cosine[row[first]]) | (
        (found[first] == cosine[row[first]]) & (ranks[first] < rank[row[first]])
    )
    cosine[row[first[better]]], rank[row[first[better]]] = found[first[better]], ranks[first[better]]
