import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deita_train.scoring.digits import digit_expectation, digit_mass

DIGIT_IDS = [7, 2, 5, 0, 9, 4]
logit = st.floats(-50, 50, width=32)


def logits_with(values, other=0.0):
    row = torch.full((1, 11), other)
    row[0, DIGIT_IDS] = torch.tensor(values)
    return row


def test_equal_logits_give_the_middle():
    assert digit_expectation(torch.zeros(3, 6)).tolist() == pytest.approx([3.5] * 3, abs=1e-6)


@given(logit)
def test_any_equal_logits_give_the_middle(value):
    assert digit_expectation(torch.full((1, 6), value)).item() == pytest.approx(3.5, abs=1e-6)


def test_the_weights_follow_the_order_of_the_digits():
    # p(1) = 1/4, p(3) = 3/4; the others are as good as absent: 1/4 * 1 + 3/4 * 3 = 2.5
    row = torch.tensor([[0.0, -200.0, math.log(3), -200.0, -200.0, -200.0]])
    assert digit_expectation(row).item() == pytest.approx(2.5, abs=1e-6)
    only = torch.full((6, 6), -200.0).fill_diagonal_(0.0)
    assert digit_expectation(only).tolist() == pytest.approx([1, 2, 3, 4, 5, 6])


@given(st.lists(logit, min_size=6, max_size=6), st.floats(-20, 20))
def test_a_constant_shift_changes_nothing_and_the_score_is_within_bounds(values, shift):
    row = torch.tensor([values])
    score = digit_expectation(row).item()
    assert 1 - 1e-5 <= score <= 6 + 1e-5
    assert digit_expectation(row + shift).item() == pytest.approx(score, abs=1e-3)
    weights = [math.exp(value - max(values)) for value in values]
    by_hand = sum(k * weight for k, weight in enumerate(weights, start=1)) / sum(weights)
    assert score == pytest.approx(by_hand, abs=1e-4)


def test_digit_mass_by_hand():
    # Six digits of weight 2 beside five other tokens of weight 1: 12 / 17.
    row = logits_with([math.log(2)] * 6)
    assert digit_mass(row, DIGIT_IDS).item() == pytest.approx(12 / 17, abs=1e-6)
    assert digit_mass(row + 30, DIGIT_IDS).item() == pytest.approx(12 / 17, abs=1e-5)


@pytest.mark.parametrize(("other", "mass"), [(-300.0, 1.0), (300.0, 0.0)])
def test_digit_mass_at_its_ends(other, mass):
    assert digit_mass(logits_with([0.0] * 6, other), DIGIT_IDS).item() == pytest.approx(mass, abs=1e-6)


def test_half_precision_is_computed_in_float32():
    row = logits_with([0.5, 1.5, -1.0, 0.25, 0.0, 2.0]).bfloat16()
    score, mass = digit_expectation(row[:, DIGIT_IDS]), digit_mass(row, DIGIT_IDS)
    assert (score.dtype, mass.dtype) == (torch.float32, torch.float32)
    assert score.tolist() == digit_expectation(row[:, DIGIT_IDS].float()).tolist()
    assert mass.tolist() == digit_mass(row.float(), DIGIT_IDS).tolist()


def test_one_value_per_row():
    rows = torch.cat([logits_with([0.0] * 6), logits_with([9.0, -200.0, -200.0, -200.0, -200.0, -200.0])])
    assert digit_expectation(rows[:, DIGIT_IDS]).tolist() == pytest.approx([3.5, 1.0], abs=1e-5)
    assert digit_mass(rows, DIGIT_IDS).shape == (2,)
