import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import answered

from deita_train.evolve.prompts import read_prompts
from deita_train.evolve.reading import Unusable
from deita_train.evolve.tag_table import TagTable
from deita_train.evolve.tags import (
    edit_distance,
    judge_tags,
    read_tags,
    tag_names,
    tag_request,
    uniform_tag,
    uniform_tags,
)
from deita_train.llm.answers import Failure
from deita_train.llm.requests import ChatRequest


def test_a_request():
    prompts = read_prompts("tags", None)
    content = prompts.render("tags", instruction="Name a fruit.")
    assert tag_request(prompts, "Name a fruit.", attempt=1, max_tokens=50) == ChatRequest(
        ({"role": "user", "content": content},), 0.0, 50, True, 1
    )


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('{"tags": ["fruit", "short answer"]}', ["fruit", "short answer"]),
        ('Tags:\n```json\n["fruit", "fruit", "list"]\n```', ["fruit", "list"]),
        ('[{"tag": "fruit", "explanation": "it is one"}, {"Tag": "list"}]', ["fruit", "list"]),
        ('{"Labels": ["fruit", 3, null, ""]}', ["fruit"]),
        ("- fruit\n* list\n2. naming", ["fruit", "list", "naming"]),
        ("<think>- no</think>\n- yes", ["yes"]),
        ("水果", "no_tags"),
        ('["水果"]', ["水果"]),
        ('{"tags": []}', "no_tags"),
        ('{"tags": ["' + "a sentence " * 20 + '"]}', "no_tags"),
        ("fruit, list", "no_tags"),
        ("[1] fruit", "no_tags"),
        ('[{"tag": "fruit"}, {"tag": "li', "no_tags"),
        ("", "no_tags"),
    ],
)
def test_tags_in_an_answer(text, tags):
    found = read_tags(text)
    assert (found.reason if isinstance(found, Unusable) else found) == tags


@given(st.text() | st.text(alphabet='[]{}":, tags\n-*1.'))
def test_no_answer_is_too_odd(text):
    found = read_tags(text)
    assert isinstance(found, Unusable) or (found and all(isinstance(tag, str) and uniform_tag(tag) for tag in found))


def test_an_answer_that_is_not_whole_is_unusable():
    assert judge_tags(answered('["fruit"]')) == ["fruit"]
    # How many tags a row has is its complexity.
    assert judge_tags(answered('["fruit"]', "length")).reason == "cut_off"
    assert judge_tags(answered("", "content_filter")).reason == "filtered"
    assert judge_tags(Failure("deadline", "600 s")) == Unusable("failed_deadline", "600 s")


@pytest.mark.parametrize(
    ("tag", "uniform"),
    [
        (" Machine-Learning ", "machine learning"),
        ("machine_learning", "machine learning"),
        ('"Poem".', "poem"),
        ("C++", "c++"),
        (".NET", ".net"),
        ("CI/CD", "ci cd"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}  b", "a b"),
        ("-", ""),
    ],
)
def test_uniform_tags(tag, uniform):
    assert uniform_tag(tag) == uniform


def slow_distance(first, second):
    """Edit distance by its definition."""
    if not first or not second:
        return len(first) + len(second)
    same = slow_distance(first[1:], second[1:])
    if first[0] == second[0]:
        return same
    return 1 + min(same, slow_distance(first[1:], second), slow_distance(first, second[1:]))


@given(st.text("abc", max_size=5), st.text("abc", max_size=5), st.integers(0, 5))
def test_edit_distance(first, second, most):
    true = slow_distance(first, second)
    assert edit_distance(first, second, most) == (true if true <= most else None)


def pool(**rows_with):
    """A pool in which each tag is in so many rows."""
    return {f"{tag}-{number}": [tag] for tag, rows in rows_with.items() for number in range(rows)}


def table_of(tags_by_row):
    table = TagTable()
    for row, tags in enumerate(tags_by_row.values()):
        table.add(row, uniform_tags(tags))
    return table


def names(tags_by_row, fewest_rows=2, similarity=0.9):
    return tag_names(table_of(tags_by_row), fewest_rows=fewest_rows, similarity=similarity)


def lists(tags_by_row, found):
    """The final tags of each row."""
    return table_of(tags_by_row).lists(found.name_of, np.ones(len(tags_by_row), bool)).to_pylist()


def test_spellings_of_one_tag_are_one():
    rows = {"1": ["Sorting Algorithms"], "2": ["sorting-algorithms"], "3": ["algorithms, sorting"], "4": ["x y"]}
    found = names(rows)
    assert found.name_of == {
        "sorting algorithms": "sorting algorithms",
        "algorithms sorting": "sorting algorithms",
        "x y": None,
    }
    assert found.rows_with == {"sorting algorithms": 3}
    assert lists(rows, found) == [["sorting algorithms"]] * 3 + [[]]
    assert lists({"1": ["Algorithms Sorting", "sorting algorithms", "X Y"]}, found) == [["sorting algorithms"]]


def test_near_tags_are_one():
    # 1 edit of 12 characters, 0.083; 1 of 18, 0.056; of 5 letters any edit is more than 0.1.
    found = names({"1": ["translation"], "2": ["translation"], "3": ["translations"], "4": ["poems"], "5": ["poem"]})
    assert found.name_of == {"translation": "translation", "translations": "translation", "poems": None, "poem": None}
    assert found.rows_with == {"translation": 3}


@pytest.mark.parametrize(
    "pair",
    [
        ("json parsing", "bson parsing"),  # another first letter
        ("python 2 scripts", "python 3 scripts"),  # another number
        ("linear regression", "linear regression model"),  # another number of words
        ("cooking", "cooling"),  # 1 edit of 7 characters
    ],
)
def test_tags_that_look_alike_and_differ_stay_apart(pair):
    found = names({str(n): list(pair) for n in range(3)})
    assert found.name_of == {tag: tag for tag in pair}


def test_a_rare_tag_joins_a_frequent_one_or_is_dropped():
    rows = {"1": ["classification"], "2": ["classification"], "3": ["clasification"], "4": ["poetry"]}
    found = names(rows)
    assert found.name_of == {"classification": "classification", "clasification": "classification", "poetry": None}
    assert lists(rows, found) == [["classification"]] * 3 + [[]]
    # A row counts once for the name that two of its tags have become.
    assert names({**rows, "5": ["classification", "clasification"]}).rows_with == {"classification": 4}


def test_similarity_one_joins_the_same_words_alone():
    rows = {str(n): ["translation", "translations", "b a", "a b"] for n in range(2)}
    assert set(names(rows, similarity=1).rows_with) == {"translation", "translations", "a b"}


def test_the_nearest_name_is_joined():
    rows = {str(n): ["international relations", "international relation"] for n in range(5)}
    # Each is near the other: the first in the alphabet of equally frequent ones is the name.
    assert names(rows).name_of == {
        "international relation": "international relation",
        "international relations": "international relation",
    }


WORDS = st.sampled_from(
    ["sort", "sorts", "sorting", "translation", "translations", "Translation", "data", "a b", "b a"]
)


@given(
    st.dictionaries(st.text("xyz", min_size=1), st.lists(WORDS, max_size=4), max_size=8),
    st.integers(1, 3),
    st.sampled_from([0.5, 0.8, 0.9, 1.0]),
    st.randoms(use_true_random=False),
)
def test_the_result_does_not_depend_on_the_order_of_the_rows(rows, fewest, similarity, shuffler):
    found = names(rows, fewest, similarity)
    items = list(rows.items())
    shuffler.shuffle(items)
    again = names(dict(items), fewest, similarity)
    assert found.name_of == again.name_of and found.rows_with == again.rows_with
    of_rows = lists(rows, found)
    for tags, of_row in zip(rows.values(), of_rows, strict=True):
        assert of_row == sorted({found.name_of[tag] for tag in map(uniform_tag, tags)} - {None})
    # Every name is its own, has enough rows, and is found in as many as are counted.
    for name, number in found.rows_with.items():
        assert found.name_of[name] == name
        assert number >= fewest and number == sum(name in of_row for of_row in of_rows)


def test_a_row_without_an_answer_has_null_and_one_whose_tags_are_rare_an_empty_list():
    table = TagTable()
    for row, tags in ((2, ["b", "a"]), (0, ["a"]), (2, ["a"]), (3, ["rare"])):  # in the order in which answers come
        table.add(row, tags)
    assert table.rows_with() == {"a": 2, "b": 1, "rare": 1}
    found = table.lists({"a": "a", "b": "b", "rare": None}, np.array([True, False, True, True]))
    assert found.to_pylist() == [["a"], None, ["a", "b"], []]


def test_many_tags_take_no_long_time():
    rng = random.Random(2)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tags = ["".join(rng.choices(letters, k=12)) for _ in range(3000)]
    rows = {str(n): [*rng.sample(tags[:300], 3), tags[n % 3000]] for n in range(3000)}
    assert len(names(rows, fewest_rows=5).rows_with) > 200
