import math

import pytest

from deita_train.selection.measures.text_table import TextTable, number_text, share_text


def test_markdown():
    table = TextTable("Two rows", ("name", "value"), (("a|b", "1"), ("c", "22")), "How to read it.")
    assert table.markdown() == (
        "**Two rows**\n\n| name | value |\n|---|---:|\n| a\\|b | 1 |\n| c | 22 |\n\nHow to read it.\n"
    )
    assert TextTable("None", ("name",), ()).markdown() == "**None**\n\n| name |\n|---|\n"


def test_a_ragged_row_is_refused():
    with pytest.raises(AssertionError, match="ragged rows in 'x'"):
        TextTable("x", ("a", "b"), (("1", "2"), ("1",)))


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (12345.678, 1, "12,345.7"),
        (-0.25, 2, "\N{MINUS SIGN}0.25"),
        (-0.001, 2, "0.00"),
        (0, 0, "0"),
        (None, 2, "\N{EN DASH}"),
        (math.nan, 2, "\N{EN DASH}"),
    ],
)
def test_number_text(value, decimals, text):
    assert number_text(value, decimals) == text


def test_share_text():
    assert (share_text(0.1256), share_text(None)) == ("12.6%", "\N{EN DASH}")
