"""Embeddings as unit vectors: read in blocks, divided by norms taken in float64, refused without a direction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from deita_train.errors import UserError

# A vector shorter than this has no direction.
MIN_NORM = 1e-12
# Rows per pass over the pool, a constant, so that no norm or mean depends on a caller's block size.
ROWS_PER_PASS = 1024


def name_rows(ids: Sequence[str], positions: np.ndarray) -> str:
    """Up to ten ids for an error message, with a sign that there are more."""
    return ", ".join(repr(ids[int(i)]) for i in positions[:10]) + (", ..." if len(positions) > 10 else "")


@contextmanager
def full_float32_products() -> Iterator[None]:
    """Float32 products in full precision, without the bfloat16 or TF32 that a caller may have set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class UnitRows:
    """Embeddings ``[N, D]`` with what normalises any of them: mean ``[D]`` or None and norms ``[N]``, float64."""

    embeddings: np.ndarray
    mean: np.ndarray | None
    norms: np.ndarray

    @classmethod
    def measure(
        cls, embeddings: np.ndarray, ids: Sequence[str], *, center: bool = False, order: np.ndarray | None = None
    ) -> "UnitRows":
        """Read the pool once (twice if centred) and refuse vectors without a direction.

        Args:
            embeddings: ``[N, D]`` float32 or float16, ``np.memmap`` allowed; need not be normalised.
            ids: N row ids, for the message.
            center: subtract the mean of all rows first.
            order: positions ``[N]`` along which the mean is summed, so that it does not depend on the order of the
                rows; None for the order of the ids.

        Raises:
            UserError: a row is not finite, or its norm is below 1e-12, after centring if that is asked.
        """
        assert embeddings.ndim == 2 and len(embeddings) == len(ids), f"{embeddings.shape} embeddings for {len(ids)} ids"
        assert embeddings.dtype in (np.float32, np.float16), f"embeddings are {embeddings.dtype}"
        mean = None
        if center and len(ids):
            by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__)) if order is None else order
            mean = _mean(embeddings, by_id)
        if mean is not None and not np.isfinite(mean).all():
            mean = None  # some row is not finite: the norms below say which, without spreading it to all rows
        norms = _norms(embeddings, mean)
        _refuse_without_direction(norms, mean, ids)
        return cls(embeddings, mean, norms)

    def __len__(self) -> int:
        return len(self.norms)

    def unit_rows(self, positions: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
        """The rows at ``positions`` as unit vectors ``[B, D]``, divided in float64, stored as ``dtype``."""
        rows = self.embeddings[positions]
        if self.mean is not None:
            rows = np.subtract(rows, self.mean, dtype=np.float64)
        unit = np.empty(rows.shape, dtype=dtype)
        return np.divide(rows, self.norms[positions, None], out=unit, casting="same_kind")


def _refuse_without_direction(norms: np.ndarray, mean: np.ndarray | None, ids: Sequence[str]) -> None:
    # Centring identical rows leaves the rounding error of their mean, which grows with the mean's own length.
    min_norm = MIN_NORM * max(1.0, 0.0 if mean is None else float(np.sqrt(np.square(mean).sum())))
    refused = np.flatnonzero(~(np.isfinite(norms) & (norms >= min_norm)))
    if len(refused):
        raise UserError(
            f"{len(refused)} of {len(ids)} embeddings have no direction to compare: they hold nan or inf, or their "
            f"norm is below {min_norm:.3g}{'' if mean is None else ' once the mean of the pool is subtracted'}. "
            f"Rows: {name_rows(ids, refused)}. Embed these rows again, or remove them from the pool."
        )


def _mean(embeddings: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Mean of the pool ``[D]`` float64, accumulated along ``order`` so that it does not depend on the input order."""
    total = np.zeros(embeddings.shape[1], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        for start in range(0, len(order), ROWS_PER_PASS):
            total += embeddings[order[start : start + ROWS_PER_PASS]].sum(axis=0, dtype=np.float64)
    return total / len(order)


def _norms(embeddings: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """Norm of every row ``[N]`` float64, after subtracting ``mean`` if there is one."""
    norms = np.empty(len(embeddings), dtype=np.float64)
    for start in range(0, len(embeddings), ROWS_PER_PASS):
        rows = embeddings[start : start + ROWS_PER_PASS].astype(np.float64)
        if mean is not None:
            rows -= mean
        norms[start : start + ROWS_PER_PASS] = np.sqrt(np.square(rows, out=rows).sum(axis=1))
    return norms
