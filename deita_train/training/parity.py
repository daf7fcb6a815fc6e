"""What the public code does, where a comparison needs it and ours differs by default."""

import numpy as np

_TRAINED_SHARE = 0.98


def public_split(num_rows: int) -> tuple[list[int], list[int]]:
    """The places of the rows that the public code trains on and of those that it holds out, each ascending.

    Of a permutation by NumPy's old generator with seed 0 the first 98%, rounded down, are trained on; the others it
    never looks at again [code, alignment/train.py].
    """
    order = np.random.RandomState(0).permutation(num_rows)
    trained = int(num_rows * _TRAINED_SHARE)
    return sorted(order[:trained].tolist()), sorted(order[trained:].tolist())
