"""What the methods cost that multiply the whole pool many times, and the refusal of what would take days.

An estimate counts only what a method does in any case, at the speed of this machine's own product of the same form. So
what is refused takes longer than that, and what is not refused may too.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deita_train.errors import UserError
from deita_train.number_text import compact, count

MOST_HOURS = 24.0
# Fewer operations end within a day on any machine; nothing is measured then.
_CERTAINLY_FEW = 1e13
_ROWS = 1024
# Rows whose gains are computed at once at most, and queries that `target` multiplies at once.
_GAINS_AT_ONCE, _QUERIES_AT_ONCE = 1024, 64
_NUMBERS = 1_000_000


@dataclass(frozen=True)
class Part:
    """Operations of one form.

    Attributes:
        operations: two for each multiply-add of a product; one for each number that a greedy step looks at.
        vectors: how many vectors a block of rows is multiplied with at once; 0 for greedy steps.
    """

    operations: float
    vectors: int


@dataclass(frozen=True)
class Size:
    """What a selection's cost depends on: N rows of D numbers, the budget, k-means clusters, queries of a target."""

    num_rows: int
    dim: int = 0
    budget: int = 0
    clusters: int | None = None
    num_queries: int = 0


def default_clusters(num_rows: int) -> int:
    """As many clusters as CaR makes: the square root of half the rows."""
    return max(1, round(math.sqrt(num_rows / 2)))


def _kmeans(size: Size) -> list[Part]:
    # A pass for each start; a last round changes nothing, so there are two at least.
    clusters = size.clusters or default_clusters(size.num_rows)
    once = 2.0 * clusters * size.num_rows * size.dim
    return [Part(once, 1), Part(2 * once, clusters)]


# Method -> its operations, at least, and what to do where they are too many.
_COSTS: dict[str, tuple[Callable[[Size], list[Part]], str]] = {
    "k_center": (
        lambda size: [Part(2.0 * (size.budget - 1) * size.num_rows * size.dim, 1)],
        "Choose a smaller budget, or method: deita or kmeans, which spread the kept rows too",
    ),
    "kmeans": (_kmeans, "State fewer clusters"),
    "facility_location": (
        lambda size: [
            Part(2.0 * size.num_rows**2 * size.dim, _GAINS_AT_ONCE),
            Part(2.0 * size.budget * size.num_rows * size.dim, 1),
        ],
        "Choose method: kmeans, which represents the pool in one pass for each cluster",
    ),
    "gist": (
        lambda size: [Part(1.0 * size.num_rows**2 * size.dim, _GAINS_AT_ONCE)],
        "Choose method: deita with a threshold, which is one of GIST's walks",
    ),
    "mig": (
        lambda size: [Part(1.0 * size.budget * size.num_rows, 0)],
        "Choose a smaller budget, or method: instag, which covers tags in one pass for each round",
    ),
    "target": (
        lambda size: [Part(2.0 * size.num_rows * size.num_queries * size.dim, _QUERIES_AT_ONCE)],
        "Name fewer questions in select.target",
    ),
}


def refuse_days(method: str, size: Size) -> None:
    """Refuse a selection that would take more than a day on this machine.

    Raises:
        UserError: it would; with the numbers, and what to do instead.
    """
    if method not in _COSTS:
        return
    parts_of, instead = _COSTS[method]
    parts = parts_of(size)
    operations = sum(part.operations for part in parts)
    if operations < _CERTAINLY_FEW:
        return
    hours = sum(part.operations / operations_per_second(part.vectors, size.dim) for part in parts) / 3600
    if hours > MOST_HOURS:
        of_numbers = f" of {count(size.dim)} numbers" if size.dim else ""
        of_budget = f" and a budget of {count(size.budget)}" if size.budget else ""
        raise UserError(
            f"{method} would take at least {count(hours)} hours on this machine: {operations:.1e} operations for "
            f"{count(size.num_rows)} rows{of_numbers}{of_budget}, at {compact(operations / hours / 3600)} a second, as "
            f"just measured. What takes more than a day is not begun. {instead}; or leave out rows first, such as all "
            "but the best tenth by score with select.between: {evol: [0.9, 1.0]} (docs/selection.md)."
        )


def operations_per_second(vectors: int, dim: int) -> float:
    """The speed of this machine: of a float32 product of 1,024 rows with so many vectors, the best of five.

    For 0 vectors that of a greedy step, in numbers looked at.
    """
    rng = np.random.default_rng(0)
    if vectors:
        rows = rng.random((_ROWS, dim), dtype=np.float32)
        others = rng.random((min(vectors, 4 * _ROWS), dim), dtype=np.float32)
        return 2.0 * len(rows) * len(others) * dim / _best_seconds(lambda: rows @ others.T)
    bounds = rng.random(_NUMBERS)
    done = np.zeros(_NUMBERS, dtype=np.int64)
    return _NUMBERS / _best_seconds(lambda: np.where(done == 1, -np.inf, bounds).argmax())


def _best_seconds(call: Callable[[], object]) -> float:
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
