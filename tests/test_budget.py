"""A budget in its three forms: what a text says, how many rows it is, what it is called."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.budget import amount_of, budget_rows, form_of, in_words, is_mapping_budget, parse_budget
from deita_train.errors import UserError

PARSED = [
    ("6000", 6000),
    ("6,000 rows", 6000),
    ("6_000", 6000),
    ("2%", {"share": 0.02}),
    ("0.5 %", {"share": 0.005}),
    ("100%", {"share": 1.0}),
    ("5000000 tokens", {"tokens": 5_000_000}),
    (" 5,000,000 tokens ", {"tokens": 5_000_000}),
]


@pytest.mark.parametrize(("text", "budget"), PARSED)
def test_a_text_by_hand(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "many", "6000.5", "-3", "2e3", "tokens", "0.02", "5M tokens", "6,00", "3 % rows"])
def test_another_text_names_the_three_forms(text):
    with pytest.raises(UserError, match=r"^--budget .*: give a number of rows \(6000\), a share of the pool's rows"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", "at least 1"), ("0%", "more than 0% and at most 100%"), ("101%", "more than 0%"), ("0 tokens", "at least")],
)
def test_an_amount_out_of_range(text, wanted):
    with pytest.raises(UserError, match=f"--budget {text}: it must be {wanted}"):
        parse_budget(text)


def test_rows_by_hand():
    assert [budget_rows({"share": share}, 100) for share in (0.29, 0.57, 1.0, 0.001, 0.999)] == [29, 57, 100, 1, 99]
    assert budget_rows({"share": 0.02}, 149) == 2
    assert budget_rows(7, 3) == 7
    assert budget_rows({"tokens": 7}, 3) is None


@given(percent=st.integers(1, 1000), rows=st.integers(1, 10**6))
def test_a_share_is_rounded_down_from_its_decimal_number(percent, rows):
    budget = parse_budget(f"{percent / 10}%")
    assert budget_rows(budget, rows) == max(1, percent * rows // 1000)
    assert Fraction(repr(budget["share"])) == Fraction(percent, 1000)


@given(first=st.floats(1e-6, 1), second=st.floats(1e-6, 1), rows=st.integers(1, 10**6))
def test_a_smaller_share_is_no_more_rows(first, second, rows):
    low, high = sorted((first, second))
    assert 1 <= budget_rows({"share": low}, rows) <= budget_rows({"share": high}, rows) <= rows


def test_words_by_hand():
    assert [in_words(budget) for _, budget in PARSED[2:7]] == ["6,000", "2%", "0.5%", "100%", "5,000,000 tokens"]
    assert in_words(6000, separated=False) == "6000"
    assert in_words({"tokens": 5_000_000}, separated=False) == "5000000 tokens"


def test_forms_and_amounts():
    assert [form_of(budget) for budget in (3, {"share": 0.5}, {"tokens": 4})] == ["rows", "share", "tokens"]
    assert [amount_of(budget) for budget in (3, {"share": 0.5}, {"tokens": 4})] == [3, 0.5, 4]
    others = (3, None, {}, {"rows": 3}, {"share": 0.5, "tokens": 3}, [1])
    assert [is_mapping_budget(value) for value in others] == [False] * len(others)
