"""The figures of a benchmark: a value with its interval over questions, and the paired difference of two models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 10_000
_BLOCK = 1_000_000  # drawn places held at once

Unit = Literal["share", "score", "percent", "number"]


@dataclass(frozen=True)
class Result:
    """One figure of one model.

    Attributes:
        value: the mean over questions, or what the benchmark makes of them.
        low: lower end of the 95% interval over questions; None where there is none.
        high: upper end.
        questions: how many questions it is over.
        unit: a "share" of one, a "score" on the benchmark's scale, a "percent", or a plain "number".
        higher_is_better: None where neither is.
    """

    value: float
    low: float | None
    high: float | None
    questions: int
    unit: Unit
    higher_is_better: bool | None = True

    def as_metric(self) -> dict[str, Any]:
        """The fields as `metrics.json` has them under `results`."""
        return asdict(self)

    @classmethod
    def of_metric(cls, found: Mapping[str, Any]) -> "Result":
        """The same read back."""
        return cls(**found)


def mean_result(values: Sequence[float], unit: Unit, seed: int = 0, higher_is_better: bool | None = True) -> Result:
    """The mean of at least one question's value, with a bootstrap interval over questions."""
    low, high = bootstrap_interval(values, seed)
    return Result(float(np.mean(values)), low, high, len(values), unit, higher_is_better)


def mean_of_groups(
    groups: Sequence[Sequence[float]], unit: Unit, seed: int = 0, higher_is_better: bool | None = True
) -> Result:
    """The mean of all values of at least one group, such as the turns of a question; whole groups are resampled."""
    return mean_of_sums([sum(group) for group in groups], list(map(len, groups)), unit, seed, higher_is_better)


def mean_of_sums(
    sums: Sequence[float],
    sizes: Sequence[int],
    unit: Unit,
    seed: int = 0,
    higher_is_better: bool | None = True,
) -> Result:
    """The mean over all parts of at least one question, such as tokens: of each its sum and how many parts it has."""
    low, high = _ratio_interval(np.asarray(sums, np.float64), np.asarray(sizes, np.float64), seed)
    return Result(float(np.sum(sums) / np.sum(sizes)), low, high, len(sizes), unit, higher_is_better)


def mean_of_tasks(
    tasks: Sequence[Sequence[float]], unit: Unit, seed: int = 0, higher_is_better: bool | None = True
) -> Result:
    """The mean of the tasks' means; the interval resamples the questions within each task."""
    value = float(np.mean([np.mean(values) for values in tasks]))
    low = high = None
    if all(len(values) > 1 for values in tasks):
        drawn = [_resampled_means(np.asarray(values, np.float64), seed + number) for number, values in enumerate(tasks)]
        low, high = _percentiles(np.mean(drawn, axis=0))
    return Result(value, low, high, sum(map(len, tasks)), unit, higher_is_better)


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float | None, float | None]:
    """The 95% percentile interval of the mean over resampled questions; nothing for a single question.

    Deterministic for equal values in equal order.
    """
    if len(values) < 2:
        return None, None
    return _percentiles(_resampled_means(np.asarray(values, dtype=np.float64), seed))


@dataclass(frozen=True)
class PairedDifference:
    """The first model's mean minus the second's over the questions that both answered.

    Attributes:
        mean: of the differences.
        low: lower end of the 95% bootstrap interval over questions; None for a single question.
        high: upper end.
        questions: that both have a value for.
    """

    mean: float
    low: float | None
    high: float | None
    questions: int

    @property
    def holds_zero(self) -> bool:
        """Whether the two may be equally good, as far as these questions tell."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], seed: int = 0
) -> PairedDifference | None:
    """The difference over the questions of both, by id; None where there is no such question."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    differences = [first[name] - second[name] for name in shared]
    low, high = bootstrap_interval(differences, seed)
    return PairedDifference(float(np.mean(differences)), low, high, len(shared))


def paired_difference_of_sums(
    first: Mapping[str, float], second: Mapping[str, float], sizes: Mapping[str, int], seed: int = 0
) -> PairedDifference:
    """The difference of two means over the same parts, such as losses per token, of the same questions."""
    assert first.keys() == second.keys() == sizes.keys(), "the questions of both are the same"
    names = sorted(sizes)
    differences = np.array([first[name] - second[name] for name in names], np.float64)
    parts = np.array([sizes[name] for name in names], np.float64)
    low, high = _ratio_interval(differences, parts, seed)
    return PairedDifference(float(differences.sum() / parts.sum()), low, high, len(names))


def _ratio_interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    """Of the sum of all over the size of all, when whole questions are resampled."""
    if len(sums) < 2:
        return None, None
    # Places are drawn as for single values, so that sizes of one give the same interval.
    return _percentiles(_resampled_means(sums, seed) / _resampled_means(sizes, seed))


def _percentiles(means: np.ndarray) -> tuple[float, float]:
    """The ends of the interval that holds most of the resampled means."""
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means [resamples] of as many questions, drawn with replacement."""
    drawing = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(values))
    blocks = []
    for start in range(0, _RESAMPLES, rows):
        places = drawing.integers(0, len(values), (min(rows, _RESAMPLES - start), len(values)))
        blocks.append(values[places].mean(axis=1))
    return np.concatenate(blocks)
