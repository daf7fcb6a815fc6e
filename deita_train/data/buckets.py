"""Rows that share a number in one of several bands, for finding pairs that are alike; all of it lies in files."""

import numpy as np

from deita_train.data.embeddings import unnamed_array, unnamed_matrix

_NONE = -1


class Buckets:
    """N rows, each with a key in every band: rows with the same key in a band are in one bucket.

    Written first, sorted once, then walked in order: a row is compared with the kept ones beside it.
    """

    def __init__(self, num_rows: int, num_bands: int) -> None:
        self._keys = unnamed_matrix((num_bands, num_rows), np.dtype(np.uint64))
        self._bucket = unnamed_matrix((num_bands, num_rows), np.dtype(np.int32))
        self._last: list[np.ndarray] = []  # of each band, the row kept last in each bucket
        self._before = unnamed_matrix((num_bands, num_rows), np.dtype(np.int32))  # the one kept before it

    def write(self, start: int, keys: np.ndarray) -> None:
        """Give rows from `start` on their keys, uint64 `[rows, bands]`."""
        self._keys[:, start : start + len(keys)] = keys.T

    def sort(self) -> None:
        """Put the rows into buckets, once all have keys; a row that is alone in one is in none."""
        for keys, bucket in zip(self._keys, self._bucket, strict=True):
            order = np.argsort(keys, kind="stable")
            is_first = np.diff(keys[order], prepend=keys[order[:1]] + np.uint64(1)) != 0
            sizes = np.diff(np.append(np.flatnonzero(is_first), len(order)))
            shared = sizes > 1
            numbers = np.where(shared, np.cumsum(shared) - 1, _NONE)
            bucket[order] = numbers.repeat(sizes)
            last = unnamed_array(int(shared.sum()), np.dtype(np.int32))
            last[:] = _NONE
            self._last.append(last)

    def kept_beside(self, row: int) -> list[int]:
        """The kept rows that share a bucket with a row."""
        found: dict[int, None] = {}
        for last, bucket, before in zip(self._last, self._bucket[:, row].tolist(), self._before, strict=True):
            other = _NONE if bucket == _NONE else int(last[bucket])
            while other != _NONE:
                found[other] = None
                other = int(before[other])
        return list(found)

    def keep(self, row: int) -> None:
        """Keep a row, for those that come after it."""
        for last, bucket, before in zip(self._last, self._bucket[:, row].tolist(), self._before, strict=True):
            if bucket != _NONE:
                before[row], last[bucket] = last[bucket], row
