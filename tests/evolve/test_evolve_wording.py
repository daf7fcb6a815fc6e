import pytest

from deita_train.evolve.wording import word_runs, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write a  poem!\n", ["write", "a", "poem"]),
        ("**WRITE**, a-poem", ["write", "a", "poem"]),
        ("I can\N{RIGHT SINGLE QUOTATION MARK}t", ["i", "can", "t"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("写一首诗。", ["写", "一", "首", "诗"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are part of the word
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}\N{FULLWIDTH DIGIT ONE}", ["a1"]),
        ("?! \t", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_runs():
    assert word_runs(["a", "b", "c", "a", "b"], 2) == {("a", "b"), ("b", "c"), ("c", "a")}
    assert word_runs(["a", "b"], 3) == set()
