"""JSON text that datasets reads as Python does."""

import datetime
import decimal
import json
import math

import datasets
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.data.json_text import (
    JSON_TYPE,
    LoneSurrogate,
    NotJson,
    decoded,
    holds_json,
    json_array,
    json_lists,
    json_text,
)

JSON = datasets.Json()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
# Below these, pandas' parser has no exact spelling for some numbers.
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: number == 0 or abs(number) > 1e-280)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


def same(one, other):
    """Equal, with equal types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_datasets_and_python_read_the_same_value(value):
    text = json_text(value)
    assert same(json.loads(text), value)
    assert same(JSON.decode_example(text), value)


@pytest.mark.parametrize("number", [0.7, 0.3, 0.1 + 0.2, 1 / 3, 59.913868, 1e22, -2.5e-7, 0.12365606600717216])
def test_fractions_that_datasets_would_round(number):
    assert JSON.decode_example(json_text({"x": [number]})) == {"x": [number]}


def test_the_reason_for_the_spelling():
    assert JSON.decode_example("0.7") != 0.7
    assert json_text(0.7) == "0.700000"
    assert json_text(0.5) == "0.5"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40])
def test_whole_numbers_beyond_64_bits_become_text(number):
    assert json_text([number, 1]) == f'["{number}", 1]'


def test_what_json_does_not_know_becomes_text_or_null():
    assert json_text([math.nan, math.inf, 0.7]) == "[null, null, 0.700000]"
    when = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    assert (
        json_text([when, when.date(), decimal.Decimal("1.50")]) == '["2024-02-29T12:00:00+00:00", "2024-02-29", "1.50"]'
    )


def test_what_cannot_be_written():
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in (b"x", {"image": {"bytes": b"x"}}, deep, {("a", "b"): 1}):
        with pytest.raises(NotJson):
            json_text(value)
    with pytest.raises(LoneSurrogate):
        json_text({"a": "\ud800"})


def test_columns_of_json():
    rows = [[{"a": 0.7}, "x"], [], [3]]
    table = pa.table(
        {"one": json_array(['"x"', None, "5"]), "many": json_lists([list(map(json_text, row)) for row in rows])}
    )
    assert table.schema.types == [JSON_TYPE, pa.list_(JSON_TYPE)]
    dataset = datasets.Dataset(table)
    assert dataset["one"][:] == ["x", None, 5]
    assert dataset["many"][:] == rows
    features = dataset.features
    assert [decoded(row["many"], features["many"]) for row in table.to_pylist()] == rows
    assert [decoded(row["one"], features["one"]) for row in table.to_pylist()] == ["x", None, 5]


def test_json_inside_other_types():
    feature = {"a": datasets.List({"b": JSON}), "c": datasets.Value("string")}
    assert holds_json(feature) and not holds_json(datasets.List(datasets.Value("string")))
    assert decoded({"a": [{"b": '{"x": 1}'}, {"b": None}], "c": '"kept"'}, feature) == {
        "a": [{"b": {"x": 1}}, {"b": None}],
        "c": '"kept"',
    }


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_is_null_at_any_depth(value):
    assert json_text(value) == "null"
    assert json_text({"role": "user", "score": value, "n": 2}) == '{"role": "user", "score": null, "n": 2}'
    assert json_text([1, {"a": [value]}]) == '[1, {"a": [null]}]'
    assert json_text("Infinity NaN") == '"Infinity NaN"'
