import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from deita_train.report.statistics import difference, estimate


def test_estimate_by_hand():
    # Mean 2, deviations -1 0 1, sd 1; t(0.975, 2) = 4.302653 from tables; half width 4.302653 / sqrt(3).
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert estimate([5.0]) == dataclasses.replace(found, mean=5.0, sd=None, half_width=None, n=1)


def test_estimates_as_text():
    assert estimate([2.0]).text() == "2.000"
    assert estimate([1.0, 2.0, 3.0]).text() == "2.0 ± 2.5"
    assert estimate([0.5, 0.5]).share_text() == "50.0%"
    assert estimate([0.61, 0.62, 0.63]).share_text() == "62.0 ± 2.5%"
    assert estimate([600.0]).count_text() == "600"
    assert estimate([590.0, 600.0, 610.0]).count_text() == "600 ± 25"


def test_difference_with_equal_spread_has_the_pooled_degrees_of_freedom():
    # Equal n and equal sd: Welch's degrees of freedom are 2n - 2 = 4; t(0.975, 4) = 2.776445.
    found = difference(estimate([1.0, 2.0, 3.0]), estimate([4.0, 5.0, 6.0]))
    half = 2.776445 * math.sqrt(1 / 3 + 1 / 3)
    assert found.mean == -3.0
    assert found.interval == pytest.approx((-3 - half, -3 + half), abs=1e-5)
    assert difference(estimate([1.0]), estimate([4.0, 5.0])).interval is None
    assert difference(estimate([1.0, 1.0]), estimate([4.0, 4.0])).interval == (-3.0, -3.0)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_the_interval_holds_95_percent_of_students_t(values):
    found = estimate(values)
    if found.sd < 1e-6:
        return
    bound, freedom = found.half_width / (found.sd / math.sqrt(found.n)), found.n - 1
    scale = special.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * special.gamma(freedom / 2))
    mass, _ = integrate.quad(lambda t: scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2), -bound, bound, limit=200)
    assert mass == pytest.approx(0.95, abs=1e-6)
    assert min(values) - 1e-9 <= found.mean <= max(values) + 1e-9
