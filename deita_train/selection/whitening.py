"""Whitening of a pool's embeddings: no direction of the space counts more than another because rows differ more in it.

The encoder's hidden states vary in a few directions far more than in all others, so that cosines say the same of most
pairs. CRDS-W (Shu et al. 2026, "On Representation Redundancy in Large-Scale Instruction Tuning Data Selection", arXiv
2602.13773) projects them on their principal components and divides each by its standard deviation; rows are compared
by cosine afterwards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deita_train.errors import UserError
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, UnitRows, centre_of, check_dimensions
from deita_train.selection.row_ids import order_of_ids

# A component with less than this share of the first one's variance is rounding.
LEAST_VARIANCE = 1e-10


@dataclass(frozen=True)
class Whitening:
    """What whitens a row x: (x - mean) @ matrix. Mean ``[D]`` and matrix ``[D, K]``, float64."""

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of_pool(cls, embeddings: np.ndarray, ids: Sequence[str], dimensions: int) -> "Whitening":
        """The principal components of the pool's rows, at most `dimensions` of them, each by its standard deviation.

        Components without variance are left out. Sums are taken along the ids, so the order of the rows does not
        matter. Costs N * D * D multiply-adds in float64 and D ** 3 for the components; memory: one block of rows and
        a few times D * D numbers.

        Args:
            embeddings: ``[N, D]`` float32 or float16.
            ids: N row ids.
            dimensions: K at most.

        Raises:
            UserError: a row is not finite, or there are too few rows for that many components.
        """
        num_rows, width = embeddings.shape
        wanted = min(dimensions, width)
        if num_rows <= wanted + 1:
            raise UserError(
                f"whiten: {num_rows} rows have at most {num_rows - 1} directions, and in {wanted} of them every row "
                "would be as far from one as from another. State whiten_dimensions: with a small part of the number "
                "of rows, or leave whiten out."
            )
        mean = centre_of(embeddings, ids)
        if mean is None:
            UnitRows.measure(embeddings, ids)  # names the rows that are not finite
            raise AssertionError("the mean of finite rows is not finite")
        products = np.zeros((width, width))
        for _, rows in _blocks(embeddings, order_of_ids(ids), mean):
            products += rows.T @ rows
        variances, components = np.linalg.eigh(products / num_rows)  # ascending
        kept = np.flatnonzero(variances > LEAST_VARIANCE * max(variances[-1], 0.0))[::-1][:wanted]
        if not len(kept):
            raise UserError("whiten: all rows have the same embedding. Embed the pool with another encoder.")
        return cls(mean, components[:, kept] / np.sqrt(variances[kept]))

    def apply(self, embeddings: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        """The whitened rows ``[N, K]`` float32, multiplied in float64: a copy in memory of N * K numbers.

        Equal rows stay equal, because each block has the same shape and rounds to float32 at the end.

        Raises:
            UserError: they have another number of dimensions than the pool.
        """
        check_dimensions(embeddings, len(self.mean))
        whitened = np.empty((len(embeddings), self.matrix.shape[1]), dtype=np.float32)
        for positions, rows in _blocks(embeddings, order_of_ids(ids), self.mean):
            whitened[positions] = (rows @ self.matrix)[: len(positions)]
        return whitened


def _blocks(embeddings: np.ndarray, order: np.ndarray, mean: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and centred rows in float64, in blocks of one size along `order`; the last is filled up with zeros."""
    for start in range(0, len(order), ROWS_PER_PASS):
        positions = order[start : start + ROWS_PER_PASS]
        rows = np.zeros((ROWS_PER_PASS, embeddings.shape[1]))
        np.subtract(embeddings[positions], mean, out=rows[: len(positions)])
        yield positions, rows
