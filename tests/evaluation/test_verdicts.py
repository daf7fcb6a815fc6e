import pytest

from deita_train.evaluation.verdicts import letter_of_token, read_letter, read_rating, read_winner
from deita_train.evolve.reading import Unusable
from deita_train.llm.answers import Answer, Failure


def answer(text, finish_reason="stop"):
    return Answer(text, finish_reason, 1, 1)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good.\nRating: [[7]]", 7.0),
        ("Rating: [[10]]", 10.0),
        ("[[8.5]] it is, not [[3]]", 8.5),
        ("Rating: [6]", 6.0),
        ("as said in [3], I give [[9]]", 9.0),  # double brackets come first
        ("Rating: [[7.]]", 7.0),
        ("<think>maybe [[2]]</think>[[4]]", 4.0),
    ],
)
def test_ratings_are_read_as_fastchat_reads_them(text, rating):
    assert read_rating(answer(text)) == rating


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A fine answer: 7 of 10.", "no_rating"),
        ("[[7/10]]", "no_rating"),
        ("[[0]]", "out_of_range"),
        ("[[11]]", "out_of_range"),
        ("Rating: [85]", "out_of_range"),
        ("<think>[[7]] perhaps", "no_rating"),
    ],
)
def test_what_is_no_rating_has_a_reason(text, reason):
    assert read_rating(answer(text)).reason == reason


def test_an_answer_that_was_cut_off_counts_if_the_verdict_is_in_it():
    assert read_rating(answer("[[7]] because", "length")) == 7.0
    assert read_rating(answer("Let me think", "length")).reason == "cut_off"
    assert read_winner(answer("[[B]] and so on", "length")) == "second"
    assert read_winner(answer("well", "length")).reason == "cut_off"


@pytest.mark.parametrize("read", [read_rating, read_winner, read_letter])
def test_calls_without_an_answer_keep_their_reason(read):
    assert read(Failure("deadline", "late")) == Unusable("failed_deadline", "late")
    assert read(answer("[[7]]", "content_filter")).reason == "filtered"


def test_verdicts_on_pairs():
    assert read_winner(answer("A is right. [[A]]")) == "first"
    assert read_winner(answer("[[C]]")) == "tie"
    assert read_winner(answer("[[B]] beats [[A]]")) == "first"  # FastChat's order
    assert read_winner(answer("[A]")).reason == "no_verdict"


def test_single_letters():
    assert [read_letter(answer(text)) for text in ("A", " b", "**B**", "(A).", "m", "M")] == [
        "first", Unusable("no_letter", "it is not one letter, A or B"), "second", "first", "first", "second"
    ]  # fmt: skip
    assert read_letter(answer("A is better")).reason == "no_letter"


def test_letters_of_tokens():
    assert [letter_of_token(token) for token in ("A", " B", "\u2581A", "\u0120B", "M", "AB", "a", "", "Both")] == [
        "first", "second", "first", "second", "second", None, None, None, None
    ]  # fmt: skip
