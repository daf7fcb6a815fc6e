"""Which width a table needs, and what becomes of one that is wider than a page."""

import pytest

from deita_train.report.tables.fitting import LEVELS, PAGE_WIDTH, least_width, level, parted, parts_of, turned
from deita_train.report.templating import breakable
from deita_train.table import CODE, LONG, PROSE, Column, Table, numbers, words


def table(*columns, rows=()):
    return Table(columns, tuple(rows))


def test_a_column_is_as_wide_as_what_cannot_be_broken():
    # Ten letters of 0.62 em in the value, and nine of 0.66 em in the heading.
    assert least_width(table(Column("a"), rows=[("1234567890",)])) == pytest.approx(6.2)
    assert least_width(table(Column("ninesigns"), rows=[("1",)])) == pytest.approx(5.94)
    # A number stays on its line up to a bracket, words up to a space; few words stay together.
    assert least_width(table(Column("a"), rows=[("2.31 ± 0.04 (2 of 3)",)])) == pytest.approx(11 * 0.62)
    assert least_width(table(Column("a", ""), rows=[("not one selected",)])) == pytest.approx(8 * 0.62)
    assert least_width(table(Column("a", ""), rows=[("not one",)])) == pytest.approx(7 * 0.62)


def test_columns_add_up_with_gaps_between_them():
    one = ("123456", "123456")
    assert least_width(table(*numbers("a", "b"), rows=[one])) == pytest.approx(2 * 6 * 0.62 + 1.1)
    assert least_width(table(*numbers("a"), *words("b"), rows=[one])) == pytest.approx(2 * 6 * 0.62 + 1.1 + 0.9)


def test_long_names_may_be_broken_and_short_ones_are_not():
    assert parts_of("score.complexity") == ["score.complexity"]
    assert parts_of("train_scorer.complexity") == ["train_", "scorer.", "complexity"]
    assert parts_of("-----------------------") == ["-----------------------"]
    assert breakable("a <b> hkust-nlp/deita-6k-v0-data") == (
        "a &lt;b&gt; hkust-<wbr>nlp/<wbr>deita-<wbr>6k-<wbr>v0-<wbr>data"
    )
    assert least_width(table(Column("a", CODE), rows=[("train_scorer-6253f12b923a",)])) == pytest.approx(12 * 0.52)


def test_prose_has_a_least_width_and_texts_side_by_side_another():
    assert least_width(table(*words("a"), Column("b", PROSE), rows=[("x", "y")])) == pytest.approx(0.66 + 1.1 + 10)
    # The prompt lies above the answers.
    assert least_width(table(*(Column(name, LONG) for name in "abcd"), rows=[tuple("wxyz")])) == 48


@pytest.mark.parametrize(("width", "found"), [(1, LEVELS[0]), (20, 20), (20.1, 26), (60, 60), (60.1, None)])
def test_the_level_is_the_first_that_is_wide_enough(width, found, monkeypatch):
    monkeypatch.setattr("deita_train.report.tables.fitting.least_width", lambda of: width)
    assert level(table(Column("a"))) == found


def test_a_wide_table_comes_in_parts_that_fit_and_repeat_the_names():
    titles = [f"measure {number}" for number in range(10)]
    values = [f"{number}{'0' * 14}" for number in range(10)]
    wide = Table((*words("group"), *numbers(*titles)), (("deita", *values),), "Result", "How to read it.")
    parts = parted(wide, 1)
    # Columns of 15 digits take 10.4 em with their gap: five of them fit, in two parts.
    assert [part.titles[1:] for part in parts] == [tuple(titles[:5]), tuple(titles[5:])]
    assert all(least_width(part) <= PAGE_WIDTH and part.titles[0] == "group" for part in parts)
    assert [part.rows[0][1] for part in parts] == [values[0], values[5]]
    assert [(part.title, part.note) for part in parts] == [("Result", ""), ("Result", "How to read it.")]


def test_a_table_that_fits_stays_whole():
    narrow = Table((*words("group"), *numbers("loss")), (("deita", "2.3"),), "Result", "How to read it.")
    assert parted(narrow, 1) == [narrow]


def test_columns_too_wide_for_any_page_stand_alone():
    wide = table(*words("a"), *numbers("b", "c"), rows=[("x", "1" * 200, "2" * 200)])
    assert [part.titles for part in parted(wide, 1)] == [("a", "b"), ("a", "c")]
    assert level(parted(wide, 1)[0]) is None


def test_columns_become_rows_that_keep_their_notes():
    upright = Table((*words("scorer"), Column("bias", note="best is 0"), *numbers("rows")), (("q", "0.1", "5"),))
    lying = turned(upright, "measure")
    assert lying.titles == ("measure", "q") and lying.rows == (("bias (best is 0)", "0.1"), ("rows", "5"))
    assert [column.numeric for column in lying.columns] == [False, True]
