"""Embeddings as unit vectors: read in blocks, divided by norms taken in float64, refused without a direction."""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from deita_train.errors import UserError
from deita_train.selection.row_ids import order_of_ids

# A vector shorter than this has no direction.
MIN_NORM = 1e-12
# An element or a float32 norm of at least this shows that there is one; the rounding of a centred row is far below it.
CLEAR_NORM = 1e-5
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
        cls,
        embeddings: np.ndarray,
        ids: Sequence[str],
        *,
        center: bool = False,
        order: np.ndarray | None = None,
        mean: np.ndarray | None = None,
    ) -> "UnitRows":
        """Read the pool once (twice if centred) and refuse vectors without a direction.

        Args:
            embeddings: ``[N, D]`` float32 or float16, ``np.memmap`` allowed; need not be normalised.
            ids: N row ids, for the message.
            center: subtract the mean first.
            order: positions ``[N]`` along which the mean is summed, so that it does not depend on the order of the
                rows; None for the order of the ids.
            mean: ``[D]`` float64 to subtract where the rows are part of a larger pool; None for that of these rows.

        Raises:
            UserError: a row is not finite, or its norm is below 1e-12, after centring if that is asked.
        """
        check_shape(embeddings, ids)
        mean = centre_of(embeddings, ids, order, mean) if center else None
        norms = _norms(embeddings, mean)
        refuse_without_direction(np.flatnonzero(_has_no_direction(norms, mean)), mean, ids)
        return cls(embeddings, mean, norms)

    def __len__(self) -> int:
        return len(self.norms)

    def others(self, embeddings: np.ndarray, ids: Sequence[str]) -> "UnitRows":
        """Vectors that are not of the pool, such as queries, less the pool's mean.

        Raises:
            UserError: one is not finite or has no direction, or another number of dimensions.
        """
        check_shape(embeddings, ids)
        check_dimensions(embeddings, self.embeddings.shape[1])
        norms = _norms(embeddings, self.mean)
        refuse_without_direction(np.flatnonzero(_has_no_direction(norms, self.mean)), self.mean, ids)
        return UnitRows(embeddings, self.mean, norms)

    def unit_rows(self, positions: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
        """The rows at ``positions`` as unit vectors ``[B, D]``, divided in float64, stored as ``dtype``."""
        rows = self.embeddings[positions]
        if self.mean is not None:
            rows = np.subtract(rows, self.mean, dtype=np.float64)
        unit = np.empty(rows.shape, dtype=dtype)
        return np.divide(rows, self.norms[positions, None], out=unit, casting="same_kind")


def check_dimensions(embeddings: np.ndarray, of_pool: int) -> None:
    """Raise UserError for vectors beside a pool that have another number of dimensions, such as those of queries."""
    if embeddings.shape[1] != of_pool:
        raise UserError(
            f"the pool's embeddings have {of_pool} dimensions and the queries' {embeddings.shape[1]}. Embed both by "
            "one encoder."
        )


def check_shape(embeddings: np.ndarray, ids: Sequence[str]) -> None:
    """Assert that there is one row of float32 or float16 for each id."""
    assert embeddings.ndim == 2 and len(embeddings) == len(ids), f"{embeddings.shape} embeddings for {len(ids)} ids"
    assert embeddings.dtype in (np.float32, np.float16), f"embeddings are {embeddings.dtype}"


def centre_of(
    embeddings: np.ndarray, ids: Sequence[str], order: np.ndarray | None = None, mean: np.ndarray | None = None
) -> np.ndarray | None:
    """The mean of the rows ``[D]`` float64, summed along ``order``, or along the ids; None for no rows.

    A ``mean`` that is given, that of a pool of which the rows are a part, is returned as it is.

    None too if some row is not finite: the norms then say which, without spreading it to all rows.
    """
    if mean is not None or not len(ids):
        return mean
    by_id = order_of_ids(ids) if order is None else order
    own = _mean(embeddings, by_id)
    return own if np.isfinite(own).all() else None


def undirected_rows(embeddings: np.ndarray, mean: np.ndarray | None, part: range) -> np.ndarray:
    """Which rows of a part of the pool ``[len(part)]`` bool have no direction, at the speed of memory or disk.

    The decision is that of ``UnitRows.measure``. Without a mean, as many threads as torch has read a stretch each: one
    alone waits for the pages of a mapped file. With one, torch computes on all its threads.
    """
    if mean is not None:
        return _undirected(embeddings, mean, part)
    threads = torch.get_num_threads()
    ends = [part.start + len(part) * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        stretches = list(pool.map(partial(_undirected, embeddings, None), map(range, ends[:-1], ends[1:])))
    return np.concatenate(stretches)


def _undirected(embeddings: np.ndarray, mean: np.ndarray | None, part: range) -> np.ndarray:
    """The same of a stretch.

    A row is clear at once if its largest element is finite and not small; with a mean, if its norm in float32 is: an
    element that is nan, infinite or too large to be squared would make that nan or infinite, and one too small would
    make it smaller. Only the other rows are measured in float64.
    """
    undirected = np.zeros(len(part), dtype=bool)
    for start in range(0, len(part), ROWS_PER_PASS):
        rows = embeddings[part[start] : min(part[start] + ROWS_PER_PASS, part.stop)]
        clear = _largest_is_clear(rows) if mean is None else _norm_is_clear(rows, mean)
        unclear = start + np.flatnonzero(~clear)
        if len(unclear):
            undirected[unclear] = _has_no_direction(_norms(rows[unclear - start], mean), mean)
    return undirected


def _largest_is_clear(rows: np.ndarray) -> np.ndarray:
    """Which rows have a largest element that is finite and not small, `[B]` bool.

    Without their sign, the bits of floats are ordered as their magnitudes, infinity and nan above all. Comparing
    integers needs no conversion, which for float16 costs ten times what the comparison does.
    """
    bits = rows.view(f"u{rows.itemsize}")
    largest = (bits & np.iinfo(f"i{rows.itemsize}").max).max(axis=1, initial=0)
    least, infinite = np.array([CLEAR_NORM, np.inf], dtype=rows.dtype).view(bits.dtype)
    return (largest >= least) & (largest < infinite)


def _norm_is_clear(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Which rows have a norm in float32, less the mean, that is finite and not small, `[B]` bool."""
    near = shared_tensor(rows).float() - torch.from_numpy(mean).float()
    norms = torch.linalg.vector_norm(near, dim=1).numpy()
    return np.isfinite(norms) & (norms >= CLEAR_NORM * _mean_length(mean))


def shared_tensor(array: np.ndarray) -> torch.Tensor:
    """The memory of an array, which may be read-only, as a tensor to be read: torch copies on several threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def refuse_without_direction(refused: np.ndarray, mean: np.ndarray | None, ids: Sequence[str]) -> None:
    """Raise :class:`UserError` that names the rows at the positions ``refused``, if there are any."""
    if len(refused):
        raise UserError(
            f"{len(refused)} of {len(ids)} embeddings have no direction to compare: they hold nan or inf, or their "
            f"norm is below {MIN_NORM * _mean_length(mean):.3g}"
            f"{'' if mean is None else ' once the mean of the pool is subtracted'}. "
            f"Rows: {name_rows(ids, refused)}. Embed these rows again, or remove them from the pool."
        )


def _has_no_direction(norms: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    return ~(np.isfinite(norms) & (norms >= MIN_NORM * _mean_length(mean)))


def _mean_length(mean: np.ndarray | None) -> float:
    """How long the mean is, 1 at least: centring identical rows leaves the rounding error of their mean, which grows
    with the mean's own length."""
    return 1.0 if mean is None else max(1.0, float(np.sqrt(np.square(mean).sum())))


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
