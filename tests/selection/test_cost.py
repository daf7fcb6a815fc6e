import re

import numpy as np
import pytest
from embedded_pools import scored

from deita_train.errors import UserError
from deita_train.selection import cost
from deita_train.selection.baselines import coverage
from deita_train.selection.candidates import Candidates, Queries
from deita_train.selection.cost import Size, operations_per_second, refuse_days
from deita_train.selection.select_rows import select_rows
from deita_train.selection.settings import SelectionSettings
from deita_train.selection.strata import strata_of

# Ten million rows of 1,024 numbers.
LARGE = {"num_rows": 10**7, "dim": 1024}


def candidates(method):
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((40, 8)).astype(np.float32)
    settings = SelectionSettings(method=method, score="quality", seed=1)
    queries = Queries(["q"], embeddings[:1])
    rows = scored([f"row-{number}" for number in range(40)], rng.integers(1, 7, size=40).astype(float))
    return Candidates(rows, settings, embeddings, queries=queries)


@pytest.fixture
def speed(monkeypatch):
    """A machine that computes 1e11 operations a second with many vectors, 1e10 with one, and looks at 1e9 numbers."""
    monkeypatch.setattr(cost, "operations_per_second", lambda vectors, dim: {0: 1e9, 1: 1e10}.get(vectors, 1e11))


@pytest.fixture
def slow(monkeypatch):
    """A machine on which anything takes days."""
    monkeypatch.setattr(cost, "_CERTAINLY_FEW", 0)
    monkeypatch.setattr(cost, "operations_per_second", lambda vectors, dim: 1e-3)


@pytest.mark.parametrize(
    ("method", "size", "operations", "hours"),
    [
        # 2 x 59,999 x 1e7 x 1,024 at 1e10.
        ("k_center", Size(**LARGE, budget=60_000), "1.2e+15", 34),
        # 2 x 1e14 x 1,024 at 1e11 is 568.9 hours, and 2 x 1,000 x 1e7 x 1,024 at 1e10 is 0.6.
        ("facility_location", Size(**LARGE, budget=1_000), "2.0e+17", 569),
        ("gist", Size(**LARGE, budget=1_000), "1.0e+17", 284),
        # A pass for each of 40,000 starts at 1e10, 22.8 hours, and two rounds at 1e11, 4.6.
        ("kmeans", Size(**LARGE, budget=9, clusters=40_000), "2.5e+15", 27),
        ("mig", Size(num_rows=10**9, budget=200_000), "2.0e+14", 56),
        ("target", Size(**LARGE, budget=9, num_queries=500_000), "1.0e+16", 28),
    ],
)
def test_what_would_take_days_is_refused_with_the_numbers(speed, method, size, operations, hours):
    with pytest.raises(UserError) as caught:
        refuse_days(method, size)
    text = str(caught.value)
    assert text.startswith(f"{method} would take at least {hours} hours on this machine: {operations} operations")
    assert f"{size.num_rows:,} rows" in text and ("of 1,024 numbers" in text) == (size.dim > 0)
    assert re.search(r"Choose|State|Name", text) and "select.between" in text


@pytest.mark.parametrize(
    ("method", "size"),
    [
        ("k_center", Size(**LARGE, budget=30_000)),  # 17 hours
        ("kmeans", Size(**LARGE, budget=30_000)),  # 2,236 clusters
        ("facility_location", Size(300_000, 4096, 10_000)),  # 2 hours for the first row
        ("mig", Size(10**7, 0, 30_000)),
        ("deita", Size(10**9, 4096, 10**6)),
        ("random", Size(10**12)),
    ],
)
def test_what_may_end_within_a_day_is_not_refused(speed, method, size):
    refuse_days(method, size)


def test_nothing_is_measured_for_what_is_small(monkeypatch):
    monkeypatch.setattr(cost, "operations_per_second", None)
    refuse_days("facility_location", Size(10_000, 1024, 1000))


def test_the_speed_is_that_of_this_machine():
    # From a slow core beside other work to a large machine.
    assert 1e7 < operations_per_second(1, 256) < 1e13
    assert 1e8 < operations_per_second(1024, 256) < 1e14
    assert 1e5 < operations_per_second(0, 0) < 1e12


@pytest.mark.parametrize("method", ["k_center", "kmeans", "facility_location", "gist", "target"])
def test_a_selection_is_refused_before_it_reads_the_pool(slow, monkeypatch, method):
    monkeypatch.setattr("deita_train.selection.candidates.UnitRows.measure", None)
    with pytest.raises(UserError, match=f"{method} would take at least"):
        select_rows(candidates(method), 5)


def test_strata_of_clusters_are_refused_too(slow):
    with pytest.raises(UserError, match="kmeans would take at least"):
        strata_of(candidates("random"), {"by": "embedding_clusters", "clusters": 3, "seed": 1})


@pytest.mark.parametrize("method", ["k_center", "facility_location"])
def test_as_many_operations_are_done_at_least(monkeypatch, method):
    done = []
    real = coverage.products

    def counted(pool, vectors, order):
        done.append(2 * len(order) * len(vectors) * vectors.shape[1])
        return real(pool, vectors, order)

    monkeypatch.setattr(coverage, "products", counted)
    select_rows(candidates(method), 7)
    least = sum(part.operations for part in cost._COSTS[method][0](Size(40, 8, 7)))
    assert sum(done) == least if method == "k_center" else sum(done) >= least
