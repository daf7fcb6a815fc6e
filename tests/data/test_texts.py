"""Texts on disk, found by their hashes, against Python's own lists and dictionaries."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.data import texts
from deita_train.data.texts import GrowingTexts, TextColumn, TextIndex, are_unique, as_column, order_of_texts, places_of

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=40)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(texts, "_AT_ONCE", 4)
    monkeypatch.setattr(texts, "_MOST_IN_MEMORY", 64)


class Same(str):
    """A text with the hash of every other."""

    __slots__ = ()

    def __hash__(self):
        return 7

    __eq__ = str.__eq__


@settings(deadline=None)
@given(TEXTS)
def test_the_order_is_pythons(found):
    unique = list(dict.fromkeys(found))
    order = order_of_texts(unique)
    assert [unique[place] for place in order] == sorted(unique)
    assert are_unique(unique, order)
    assert are_unique(found, order_of_texts(found)) == (len(unique) == len(found))


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_places_are_those_of_a_dictionary(wanted, there):
    there = list(dict.fromkeys(there))
    known = {text: place for place, text in enumerate(there)}
    assert places_of(wanted, there).tolist() == [known.get(text, -1) for text in wanted]
    assert places_of(there, there).tolist() == list(range(len(there)))


def test_texts_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(texts, "numbers_of", lambda found: np.full(len(found), 7))
    there = list("abcdefghij")
    assert places_of([*"jbx", "", "a"], there).tolist() == [9, 1, -1, -1, 0]
    index = TextIndex()
    assert [index.add(Same(text)) for text in "abacbd"] == [0, 1, 0, 2, 1, 3]
    assert (index.number_of(Same("d")), index.number_of(Same("x"))) == (3, None)


@settings(deadline=None)
@given(TEXTS)
def test_an_index_numbers_texts_in_the_order_in_which_they_come(found):
    index, numbers = TextIndex(), {}
    for text in found:
        assert index.number_of(text) == numbers.get(text)
        assert index.add(text) == numbers.setdefault(text, len(numbers))
    assert list(index.texts) == list(numbers) and len(index) == len(numbers)


def test_an_index_grows():
    index = TextIndex()
    index.extend(str(number) for number in range(5000))
    assert [index.number_of(str(number)) for number in range(0, 5000, 7)] == list(range(0, 5000, 7))
    assert index.number_of("5000") is None


@settings(deadline=None)
@given(TEXTS)
def test_growing_texts_are_a_sequence(found):
    grown = GrowingTexts()
    for text in found:
        grown.append(text)
    assert (list(grown), len(grown), grown[1:3]) == (found, len(found), found[1:3])
    assert [grown[place] for place in range(len(found))] == found
    assert list(grown.column()) == found


def test_a_column_is_a_sequence_of_its_chunks():
    column = TextColumn(pa.chunked_array([["a", "b"], [], ["c"]], pa.string()))
    assert (len(column), column[0], column[-1], column[1:], list(column)) == (3, "a", "c", ["b", "c"], ["a", "b", "c"])
    assert column == as_column(["a", "b", "c"]) and column == ["a", "b", "c"] and column != ["a", "b"]
    assert list(column.at(np.array([2, 0]))) == ["c", "a"]
