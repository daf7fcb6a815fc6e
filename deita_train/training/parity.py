"""Behaviour of the public DEITA code that differs from our defaults, for comparisons."""

import numpy as np

_TRAINED_SHARE = 0.98


def public_split(num_rows: int) -> tuple[list[int], list[int]]:
    """Split rows as the public code does.

    It trains on the first 98%, rounded down, of a permutation by NumPy's legacy generator with seed 0, and never uses
    the rest [code, alignment/train.py].

    Returns:
        The positions of the trained rows and of the held-out rows, each ascending.
    """
    order = np.random.RandomState(0).permutation(num_rows)
    trained = int(num_rows * _TRAINED_SHARE)
    return sorted(order[:trained].tolist()), sorted(order[trained:].tolist())
