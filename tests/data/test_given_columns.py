import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.data.given_columns import given_embeddings, given_scores
from deita_train.errors import UserError


def write(folder, *rows):
    path = folder / "given.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def scores(folder, ids, num_turns, *rows):
    return given_scores(write(folder, *rows), "quality_scores", ids, num_turns)


def test_scores_are_joined_by_id(tmp_path):
    rows = [
        {"id": "b", "quality_scores": [1, None, 2.5]},
        {"id": "unknown", "quality_scores": "anything"},
        {"id": 7, "quality_scores": 6},
        {"id": "a", "quality_scores": None},
    ]
    found = scores(tmp_path, ["a", "b", "7"], [1, 3, 1], *rows)
    assert found.scores.to_pylist() == [[None], [1.0, None, 2.5], [6.0]]
    assert found.num_unused == 1


def test_the_rounding_of_an_expectation_is_no_mistake(tmp_path):
    found = scores(tmp_path, ["a"], [2], {"id": "a", "quality_scores": [6.0000005, 0.9999999]})
    assert found.scores.to_pylist() == [[6.0000005, 0.9999999]]


MISTAKES = [
    ([{"id": "a"}], "given.jsonl:1: column 'quality_scores' is missing; the row has 'id'"),
    ([{"quality_scores": [1]}], "given.jsonl:1: column 'id' is missing; the row has 'quality_scores'"),
    ([{"id": None, "quality_scores": [1]}], "given.jsonl:1: id None is not an id; expected text or a whole number"),
    ([{"id": "a", "quality_scores": [1]}] * 2, "id 'a' occurs twice: at "),
    ([{"id": "a", "quality_scores": [1, 2]}], "2 scores for 1 user turns; give one per turn"),
    ([{"id": "a", "quality_scores": []}], "0 scores for 1 user turns"),
    (
        [{"id": "a", "quality_scores": [0.5]}],
        "(row 'a'): quality_scores: 0.5 is not a score; give a number from 1",
    ),
    ([{"id": "a", "quality_scores": 6.1}], "6.1 is not a score"),
    ([{"id": "a", "quality_scores": ["5"]}], "'5' is not a score"),
    ([{"id": "a", "quality_scores": [True]}], "True is not a score"),
    ([{"id": "a", "quality_scores": [float("nan")]}], "nan is not a score"),
    ([{"id": "x", "quality_scores": [1]}], "1 of the pool's 1 rows are not in it, such as 'a'; its own ids begin 'x'"),
]


@pytest.mark.parametrize(("rows", "message"), MISTAKES)
def test_scores_that_cannot_be_used_are_reported(tmp_path, rows, message):
    with pytest.raises(UserError) as caught:
        scores(tmp_path, ["a"], [1], *rows)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


def test_missing_rows_are_named_and_counted(tmp_path):
    with pytest.raises(UserError, match="7 of the pool's 8 rows are not in it, such as '1', '2', '3', '4', '5';"):
        scores(tmp_path, [str(number) for number in range(8)], [1] * 8, {"id": "0", "quality_scores": 1})


def test_embeddings_are_joined_by_id(tmp_path):
    file = write(
        tmp_path,
        {"id": "b", "embedding": [1, 2.5]},
        {"id": "c", "embedding": "no row of the pool"},
        {"id": "a", "embedding": [0.1, -3]},
    )
    found = given_embeddings(file, ["a", "b"])
    assert found.matrix.dtype == np.float32 and found.num_unused == 1
    assert np.array_equal(found.matrix, np.array([[0.1, -3], [1, 2.5]], dtype=np.float32))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([1.0], "given.jsonl:2 (row 'b'): the embedding has 1 numbers, and "),
        ([1.0, None], "no list of numbers"),
        ([1.0, "2"], "no list of numbers"),
        ([[1.0], [2.0]], "no list of numbers"),
        ([[1.0], [2.0, 3.0]], "no list of numbers"),
        ([True, False], "no list of numbers"),
        (None, "no list of numbers"),
        ("12", "no list of numbers"),
        ([], "no list of numbers"),
        ([1.0, float("inf")], "not finite in float32"),
        ([1.0, 1e300], "not finite in float32"),
    ],
)
def test_embeddings_that_cannot_be_used_are_reported(tmp_path, second, message):
    file = write(tmp_path, {"id": "a", "embedding": [1.0, 2.0]}, {"id": "b", "embedding": second})
    with pytest.raises(UserError) as caught:
        given_embeddings(file, ["a", "b"])
    assert message in str(caught.value) and "given.jsonl:2 (row 'b')" in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(6)))
def test_the_order_of_the_file_changes_nothing(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("order")
    rows = [{"id": str(n), "embedding": [float(n), 1.0], "quality_scores": [1 + n / 2]} for n in range(6)]
    file = write(folder, *(rows[place] for place in order))
    ids = [str(number) for number in range(6)]
    assert given_embeddings(file, ids).matrix[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert given_scores(file, "quality_scores", ids, [1] * 6).scores.to_pylist() == [
        [1.0],
        [1.5],
        [2.0],
        [2.5],
        [3.0],
        [3.5],
    ]
