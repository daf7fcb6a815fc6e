"""A score made of several numbers of each row, and the orders in which numbers are taken.

Nothing here depends on the order of the rows: sums are correctly rounded, and everything else follows from sorting.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from deita_train.selection.settings import Order, WeightedScore

_ROWS_AT_ONCE = 4096


def weighted_score(numbers: Mapping[str, np.ndarray], score: WeightedScore) -> np.ndarray:
    """The weighted sum or product of scaled numbers of N rows.

    Each number is put into its order (`in_order`), then on a common scale (`scaled`) over the rows that have all of
    them. "sum" adds weight times number; "product" multiplies the numbers, each to the power of its weight, and needs
    a scale that is not negative.

    Args:
        numbers: `[N]` float64 by name, nan for a row without one.
        score: `weights`, a `weight` above 0 and an `order` by name; `scale` and `combine`.

    Returns:
        `[N]` float64, nan for a row that lacks one of the numbers.
    """
    weights = score["weights"]
    whole = ~np.isnan(np.stack([numbers[name] for name in weights])).any(axis=0)
    parts = []
    for name, how in weights.items():
        part = scaled(in_order(numbers[name][whole], how["order"]), score["scale"])
        parts.append(part * how["weight"] if score["combine"] == "sum" else part ** how["weight"])
    combined = math.fsum if score["combine"] == "sum" else _product
    rows, found = np.stack(parts, axis=1), np.full(len(whole), np.nan)
    found[whole] = np.fromiter(map(combined, _lists(rows)), np.float64, len(rows))
    return found


def _product(numbers: Sequence[float]) -> float:
    return math.prod(sorted(numbers))  # in whatever order they are named


def _lists(rows: np.ndarray) -> Iterator[list[float]]:
    """The rows as Python's numbers, without holding all of them."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield from rows[start : start + _ROWS_AT_ONCE].tolist()


def in_order(numbers: np.ndarray, order: Order) -> np.ndarray:
    """Numbers `[N]` such that the highest come first: as they are, negated, or by how near they are to the middle.

    The middle is that of the ranking, not of the scale: a number's place is the share of rows below it, and half of
    those with the same number, and the nearest to one half comes first. So the first tenth of the rows lies between
    the quantiles 0.45 and 0.55.
    """
    if order == "middle":
        return -np.abs(quantile_ranks(numbers) - 0.5)
    return numbers if order == "highest" else -numbers


def quantile_ranks(numbers: np.ndarray) -> np.ndarray:
    """The share of the N numbers below each, and half of those equal to it: `[N]` float64 between 0 and 1."""
    ranks: np.ndarray = (rankdata(numbers) - 0.5) / max(len(numbers), 1)
    return ranks


def scaled(numbers: np.ndarray, scale: str) -> np.ndarray:
    """Numbers `[N]` on a common scale: "z" (less the mean, by the standard deviation), "rank" or "min_max" (0 to 1).

    Equal numbers of all rows say nothing of any of them and become the middle of the scale.
    """
    if scale == "rank":
        return quantile_ranks(numbers)
    if not len(numbers) or numbers.min() == numbers.max():
        return np.full(len(numbers), 0.0 if scale == "z" else 0.5)
    if scale == "min_max":
        return (numbers - numbers.min()) / (numbers.max() - numbers.min())
    centred = numbers - _mean(numbers)
    return centred / math.sqrt(_mean(centred**2))


def outside(numbers: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Which of N numbers `[N]` bool lie outside two quantiles of them (linearly interpolated), nan for none."""
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return np.ones(len(numbers), dtype=bool)
    lowest, highest = np.quantile(known, limits)
    return ~((numbers >= lowest) & (numbers <= highest))


def _mean(numbers: np.ndarray) -> float:
    return math.fsum(numbers) / len(numbers)
