"""Texts as words: what is made equal, what divides words, and where each stands."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_train.evaluation.normalised_words import is_unspaced, normalised_words, word_places


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't  STOP_me,\nnow!", ["don", "t", "stop", "me", "now"]),
        ("3.14 + x2 = **5**", ["3", "14", "x2", "5"]),
        ("\uff26\uff35ll ﬁne Straße", ["full", "fine", "strasse"]),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zerowidth"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are marks and part of the word
        ("中文, 字!", ["中", "文", "字"]),
        ("東京でAI", ["東", "京", "で", "ai"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ｶﾞ ガ", ["ガ", "ガ"]),
        ("…—!? ", []),
        ("", []),
    ],
)
def test_words(text, words):
    assert normalised_words(text) == words
    assert len(word_places(text)) == len(words)


def test_scripts_without_spaces():
    assert all(map(is_unspaced, "中かカท"))
    assert not any(map(is_unspaced, ["a", "é", "한국어", "हिन्दी", "7"]))


@given(st.text())
def test_each_word_stands_where_it_is_said_to(text):
    words, places = normalised_words(text), word_places(text)
    assert [normalised_words(text[start:end]) for start, end in places] == [[word] for word in words]
    assert all(before[1] <= after[0] for before, after in pairwise(places))


@given(st.text(st.characters(codec="utf-8", categories=("Ll", "Lu", "Nd", "Zs", "Po"))))
def test_case_encoding_and_punctuation_change_nothing(text):
    assert normalised_words(unicodedata.normalize("NFD", text)) == normalised_words(text)
    spaced = "".join(f"{character}..\n" if character == " " else character for character in text)
    assert normalised_words(spaced) == normalised_words(text)
