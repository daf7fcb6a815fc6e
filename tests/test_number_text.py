import math

import pytest

from deita_train import number_text


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (12345.678, 1, "12,345.7"),
        (-0.25, 2, "\N{MINUS SIGN}0.25"),
        (-0.001, 2, "0.00"),
        (0, 0, "0"),
        (None, 2, "\N{EN DASH}"),
        (math.nan, 2, "\N{EN DASH}"),
    ],
)
def test_decimals(value, places, text):
    assert number_text.decimals(value, places) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number_text.count(1234567), "1,234,567"),
        (number_text.compact(999), "999"),
        (number_text.compact(12_345), "12.3 k"),
        (number_text.compact(7_241_732_096), "7.24 B"),
        (number_text.significant(-0.01234), "\N{MINUS SIGN}0.0123"),
        (number_text.significant(0.0), "0.0"),
        (number_text.share(0.0504), "5.0%"),
        (number_text.share(0.1256), "12.6%"),
        (number_text.share(None), "\N{EN DASH}"),
        (number_text.duration(0.84), "0.8 s"),
        (number_text.duration(59.6), "1 min 00 s"),
        (number_text.duration(3 * 3600 + 5 * 60), "3 h 05 min"),
        (number_text.plural(1, "seed"), "1 seed"),
        (number_text.plural(1200, "row"), "1,200 rows"),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected
