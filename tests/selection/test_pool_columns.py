import datasets
import numpy as np
import pyarrow as pa
import pytest

from deita_train.errors import UserError
from deita_train.selection.pool_columns import number_column, tag_column


def rows(values, kind=None):
    return datasets.Dataset(pa.table({"id": pa.array(list("abcdef")[: len(values)]), "x": pa.array(values, kind)}))


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int64(), pa.int8(), pa.uint16()])
def test_numbers(kind):
    np.testing.assert_array_equal(number_column(rows([3, None, 1], kind), "x"), [3.0, np.nan, 1.0])


def test_what_is_not_finite_is_no_number():
    values = number_column(rows([float("inf"), float("nan"), -float("inf"), 0.5]), "x")
    np.testing.assert_array_equal(values, [np.nan, np.nan, np.nan, 0.5])
    assert np.isnan(number_column(rows([None, None], pa.null()), "x")).all()


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (["1", "2"], "text"),
        ([True, False], "yes/no values"),
        ([[1.0], [2.0]], "lists of numbers"),
        ([["a"]], "lists of text"),
    ],
)
def test_what_holds_no_numbers_is_refused(values, held):
    with pytest.raises(UserError, match=f"^column 'x' holds {held}, and the method needs a number in each row"):
        number_column(rows(values), "x")


def test_tags_of_lists_and_of_text():
    listed = rows([["b", "a", " b ", ""], None, [], ["a", None]], pa.list_(pa.string()))
    assert tag_column(listed, "x") == [("a", "b"), (), (), ("a",)]
    joined = rows(["b, a,b,,", None, " ", "two words,é"])
    assert tag_column(joined, "x") == [("a", "b"), (), (), ("two words", "é")]
    assert tag_column(rows([None], pa.null()), "x") == [()]


@pytest.mark.parametrize(
    "text",
    [
        '["b c", "a, d"]',
        "['b c', 'a, d']",
        '["b c", null, "a, d"]',
        "['b c', None, \"a, d\",]",
        " ('a, d', 'b c') ",
        "{'a, d', 'b c'}",
        '["A,  D", "B\\u0020c", "", "b  C"]',
    ],
)
def test_a_list_written_as_text_is_the_list(text):
    assert tag_column(rows([text]), "x") == [("a, d", "b c")]
    assert tag_column(rows([["b c", "a, d"]], pa.list_(pa.string())), "x") == [("a, d", "b c")]


def test_an_empty_list_as_text_has_no_tags():
    assert tag_column(rows(["[]", "()", " [ ] "]), "x") == [(), (), ()]


@pytest.mark.parametrize(
    "text",
    [
        "[a, b]",
        "['a' 'b']",
        '["a", 1]',
        "['a', ['b']]",
        "(a) b, c",
        '{"tag": "a"}',
        '[{"tag": "a"}]',
        '["a"',
        "['a', b'c']",
    ],
)
def test_a_text_in_brackets_that_is_no_list_of_texts_is_refused(text):
    with pytest.raises(UserError, match=r"^column 'x' holds text that begins with a bracket .* 1 of 2 rows: 'b'\. "):
        tag_column(rows(["a", text]), "x")


def test_case_and_white_space_do_not_make_two_tags_of_one():
    assert tag_column(rows(["Data  Analysis,data analysis, STRASSE", "straße\tx"]), "x") == [
        ("data analysis", "strasse"),
        ("strasse x",),
    ]


@pytest.mark.parametrize(
    ("values", "held"), [([1, 2], "numbers"), ([[1]], "lists of numbers"), ([{"a": 1}], "structured")]
)
def test_what_holds_no_tags_is_refused(values, held):
    with pytest.raises(UserError, match=f"^column 'x' holds {held}.*needs the tags of each row"):
        tag_column(rows(values), "x")


@pytest.mark.parametrize("read", [number_column, tag_column])
def test_a_missing_column_is_reported_with_those_that_are_there(read):
    with pytest.raises(UserError, match=r"^the pool has no column 'y' for the method to read; it has id, x\."):
        read(rows([1]), "y")
