"""Means over seeds and differences between groups, each with its 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from deita_train.number_text import count, decimals, significant, significant_places

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: over `n` values.
        sd: standard deviation with n - 1 in the denominator; None for a single value.
        half_width: half the 95% interval of the mean by Student's t with n - 1 degrees of freedom; None for a single
            value.
        n: number of values.
    """

    mean: float
    sd: float | None
    half_width: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the 95% interval; the mean twice where it is unknown."""
        half_width = self.half_width or 0.0
        return self.mean - half_width, self.mean + half_width

    def text(self) -> str:
        """Mean and, where the seeds differ, half the interval: `2.310 ± 0.042`."""
        if not self.half_width:
            return significant(self.mean, 4)
        return self._with_half_width(min(significant_places(self.half_width, 2), 4))

    def share_text(self) -> str:
        """As `text`, for fractions of one: `62.0 ± 2.5%`."""
        percent = self._times(100)
        if not percent.half_width:
            return f"{decimals(percent.mean, 1)}%"
        return f"{percent._with_half_width(min(significant_places(percent.half_width, 2), 1))}%"

    def count_text(self) -> str:
        """As `text`, for whole numbers: `600 ± 12`."""
        return self._with_half_width(0) if self.half_width else count(self.mean)

    def _with_half_width(self, places: int) -> str:
        return f"{decimals(self.mean, places)} ± {decimals(self.half_width, places)}"

    def _times(self, factor: float) -> Estimate:
        sd, half_width = (None if value is None else factor * value for value in (self.sd, self.half_width))
        return Estimate(factor * self.mean, sd, half_width, self.n)


@dataclass(frozen=True)
class Difference:
    """A difference of means with its 95% interval; the interval is None where a single seed leaves it unknown."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def includes_zero(self) -> bool:
        """Whether the interval, which must be known, holds zero."""
        assert self.interval is not None, "a single seed has no interval"
        return self.interval[0] <= 0 <= self.interval[1]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95% interval of at least one value."""
    n = len(values)
    # Seeds that share a value may differ in its last bit, by the order of a sum: that is no spread.
    if math.isclose(min(values), max(values), rel_tol=1e-12):
        spread = None if n == 1 else 0.0
        return Estimate(values[0], spread, spread, n)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Estimate(mean, sd, _quantile(n - 1) * sd / math.sqrt(n), n)


def difference(first: Estimate, second: Estimate) -> Difference:
    """`first` minus `second` by Welch's t-test: degrees of freedom by Satterthwaite, variances not assumed equal."""
    mean = first.mean - second.mean
    if first.sd is None or second.sd is None:
        return Difference(mean, None)
    variances = (first.sd**2 / first.n, second.sd**2 / second.n)
    total = sum(variances)
    if total == 0:
        return Difference(mean, (mean, mean))
    freedom = total**2 / (variances[0] ** 2 / (first.n - 1) + variances[1] ** 2 / (second.n - 1))
    half_width = _quantile(freedom) * math.sqrt(total)
    return Difference(mean, (mean - half_width, mean + half_width))


def paired_difference(differences: Sequence[float]) -> Difference:
    """The mean of differences taken within pairs, with its 95% interval by Student's t."""
    found = estimate(differences)
    return Difference(found.mean, None if found.half_width is None else found.interval)


def _quantile(freedom: float) -> float:
    """Of Student's t: how many standard errors the interval reaches to each side."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def evenly(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of `places` [N], as evenly as they can be, the first and the last among them."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]
