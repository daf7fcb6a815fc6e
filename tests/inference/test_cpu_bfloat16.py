"""When bfloat16 on a CPU is refused: by measured products, against the work that there is to do."""

import pytest
import torch

from deita_train.errors import UserError
from deita_train.inference import cpu_bfloat16
from deita_train.inference.cpu_bfloat16 import (
    ProductRates,
    product_rates,
    refuse_slow_bfloat16,
    slow_bfloat16,
    slow_stages,
)

SLOW = ProductRates(float32=150e9, bfloat16=1e9)


@pytest.fixture
def rates(monkeypatch):
    """Sets the measured rates."""
    return lambda made: monkeypatch.setattr(cpu_bfloat16, "product_rates", lambda: made)


def test_a_measurement_gives_the_rates_of_this_machine(monkeypatch):
    ticks = iter([0.0, 2.0, 10.0, 10.5, 20.0, 21.0, 30.0, 34.0, 40.0, 48.0, 50.0, 54.0])
    monkeypatch.setattr(cpu_bfloat16.time, "perf_counter", lambda: next(ticks))
    product_rates.cache_clear()
    try:
        measured = product_rates()
        assert (measured.float32, measured.bfloat16) == (2 * 512**3 / 0.5, 2 * 512**3 / 4.0)
        assert measured.slowdown == 8.0
        assert product_rates() is measured, "it is measured once"
    finally:
        product_rates.cache_clear()


def test_a_quick_product_is_measured_again_so_that_other_work_beside_it_does_not_count(monkeypatch):
    """Three products that other work delays take 0.27 s, which is not enough; the fourth is the fast one."""
    durations = [0.09, 0.09, 0.09, 0.04, 0.01]
    ticks = iter([tick for place, each in enumerate(durations) for tick in (place, place + each)])
    monkeypatch.setattr(cpu_bfloat16.time, "perf_counter", lambda: next(ticks))
    assert cpu_bfloat16._rate(torch.float32) == pytest.approx(2 * 512**3 / 0.04)
    assert next(ticks, None) is not None, "it ends once 0.3 s are measured"


def test_hours_in_bfloat16_that_are_minutes_in_float32_are_refused(rates):
    rates(SLOW)
    with pytest.raises(UserError) as caught:
        refuse_slow_bfloat16(9e12, "State dtype: float32.")
    assert str(caught.value) == (
        "on this CPU a matrix product in bfloat16 takes 150 times as long as in float32, so this would take at least "
        "2.5 hours instead of 1.0 minutes. State dtype: float32."
    )


def test_stages_are_told_with_what_to_state_instead(rates):
    rates(SLOW)
    found = slow_stages([("embed", 9e12, False), ("score.quality", 1e9, False), ("sft", 9e12, True)])
    assert [text.partition(":")[0] for text in found] == ["embed", "sft"]
    assert found[0].endswith("State dtype: float32, or run it on a GPU.") and "Leave out trainer.bf16" in found[1]


@pytest.mark.parametrize(
    ("flops", "made"),
    [
        (6e10, SLOW),  # a minute at 1 GFLOP/s saves less than a minute
        (1e18, ProductRates(150e9, 80e9)),  # slower, but by less than half
        (1e18, ProductRates(150e9, 300e9)),
    ],
)
def test_little_work_and_a_capable_cpu_are_not(rates, flops, made):
    rates(made)
    refuse_slow_bfloat16(flops, "")


def test_tiny_work_is_not_even_measured(monkeypatch):
    monkeypatch.setattr(cpu_bfloat16, "product_rates", lambda: pytest.fail("measured"))
    refuse_slow_bfloat16(4e10, "")


def test_the_reason_names_the_ratio(rates):
    rates(SLOW)
    assert slow_bfloat16() == "on this CPU a matrix product in bfloat16 takes 150 times as long as in float32"
    rates(ProductRates(1e9, 1e9))
    assert slow_bfloat16() is None


def test_a_product_has_the_stated_number_of_operations():
    """The rate that is measured here is positive and below any CPU's peak."""
    assert 1e6 < cpu_bfloat16._rate(torch.float32) < 1e15
