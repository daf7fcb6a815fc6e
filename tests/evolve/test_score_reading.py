import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deita_train.evolve.reading import Unusable
from deita_train.evolve.score_reading import read_score, read_scores

SCORES = [3, 4, 1]

FORMS = {
    "JSON": '{"1": 3, "2": 4, "3": 1}',
    "JSON in a fence, out of order": 'Here you are:\n```json\n{"3": 1, "1": 3, "2": 4}\n```\nThe first is short.',
    "numbers as text": '{"1": "3", "2": " 4 ", "3": "1/6"}',
    "whole numbers with a point": '{"1": 3.0, "2": 4.0, "3": "1.0"}',
    "names": '{"Item 1": 3, "item_2": 4, "[3]": 1}',
    "objects": '[{"item": 2, "score": 4}, {"item": 1, "score": 3}, {"item": "3", "rating": "1"}]',
    "objects within": '{"1": {"score": 3, "reason": "2 parts"}, "2": {"score": 4}, "3": {"score": 1}}',
    "JSON lines": '{"index": 1, "score": 3}\n{"index": 2, "score": 4}\n{"index": 3, "score": 1}',
    "scores under a name": '{"scores": {"1": 3, "2": 4, "3": 1}, "comment": "1: 2"}',
    "scores under a name, as a list": '{"scores": [3, 4, 1]}',
    "a list": "[3, 4, 1]",
    "a list in words": "The scores are [3, 4, 1], I think.",
    "a list under a foreign name": '{"puntuaciones": [3, 4, 1]}',
    "keys without quotes": "{1: 3, 2: 4, 3: 1}",
    "lines": "1: 3\n2: 4\n3: 1",
    "lines out of order": "3: 1\n1: 3\n2: 4",
    "lines in Markdown": "## Scores\n\n- **[1]** score: 3\n- **[2]** score: 4\n- **[3]** score: 1\n",
    "lines with reasons": "[1] Score: 3 - two parts\n[2] Score: 4, because of 2 limits\n[3] Score: 1 (one step)",
    "of six": "Item 1: 3/6\nItem 2: 4 / 6\nItem 3: 1/6.",
    "dashes": "1 - 3\n2 \N{EN DASH} 4\n3 \N{EM DASH} 1",
    "arrows": "1 -> 3\n2 => 4\n3 \N{RIGHTWARDS ARROW} 1",
    "brackets": "(1) 3\n2) 4\n#3: 1",
    "numbered": "1. 3\n2. 4\n3. 1",
    "words before": "Score of text 1: 3\nScore of text 2: 4\nScore of text 3: 1",
    "on one line": "1: 3, 2: 4, 3: 1",
    "on one line, tight": "1:3,2:4,3:1",
    "on one line, with words": "Item 1: 3; Item 2: 4; Item 3: 1",
    "equals signs": "1=3 2=4 3=1",
    "a table": "| item | score |\n|---|---|\n| 1 | 3 |\n| 2 | 4 |\n| 3 | 1 |",
    "a table with the texts": "| 1 | a poem | 3 |\n| 2 | a proof | 4 |\n| 3 | a word | 1 |",
    "thoughts": '<think>Say 1: 6, 2: 6, 3: 5. {"1": 6, "2": 6, "3": 5}</think>\n1: 3\n2: 4\n3: 1',
    "a draft in lines before JSON": '1: easy, so 2\n2: 4\n3: hard\n{"1": 3, "2": 4, "3": 1}',
    "prose with other numbers": "Of 3 texts, the 2nd is hardest (5 limits).\n1: 3\n2: 4\n3: 1\nAll 3 are clear.",
    "a scale as heading": "Scores (1-6):\n1: 3\n2: 4\n3: 1",
    "Chinese": "第1条\N{FULLWIDTH COLON}\N{FULLWIDTH DIGIT THREE}\n第2条\N{FULLWIDTH COLON}4\n第3条: 1",
    "Arabic digits": "\u0661: \u0663\n\u0662: \u0664\n\u0663: \u0661",
    "digits in circles": "\N{CIRCLED DIGIT ONE} 3\n\N{CIRCLED DIGIT TWO} 4\n\N{CIRCLED DIGIT THREE} 1",
    "German": "Text 1: Punktzahl 3\nText 2: Punktzahl: 4\nText 3: 1",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form):
    assert read_scores(FORMS[form], 3) == SCORES


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_scores"),
        ("I cannot judge this.", "no_scores"),
        ("1. Easy: it asks for a word.\n2. Hard.\n3. Easy.", "no_scores"),
        ("1. It has 3 steps\n2. It has 4 steps\n3. It has 1 step", "no_scores"),
        ("3\n4\n1", "no_scores"),
        ("10\n24\n3.5", "no_scores"),
        ("[3, 4, 1] or [3, 4, 2]", "no_scores"),
        ("[3, 4]", "no_scores"),
        ('{ "1": <score>, "2": <score>, "3": <score> }', "no_scores"),
        ("<think>1: 3\n2: 4\n3: 1", "no_scores"),
        ("1: 3\n2: 4", "missing_item"),
        ('{"1": 3, "3": 4}', "missing_item"),
        ('{"scores": [3, 4]}', "missing_item"),
        ("1: 3-4\n2: 4\n3: 1", "missing_item"),
        ("1: 3 or 4\n2: 4\n3: 1", "missing_item"),
        ("1: 3/10\n2: 4\n3: 1", "missing_item"),
        ("1: 3\n2: 4\n2: 4\n3: 1", "doubled_item"),
        ('{"1": 3, "1": 4, "2": 4, "3": 1}', "doubled_item"),
        ('{"1": 3, "2": 4, "3": 1}\n{"1": 3, "2": 4, "3": 1}', "doubled_item"),
        ('{"item": 1, "score": 3, "score": 4}', "doubled_item"),
        ("0: 3\n1: 4\n2: 1", "unknown_item"),
        ("1: 3\n2: 4\n3: 1\n4: 2", "unknown_item"),
        ('{"scores": [3, 4, 1, 2]}', "unknown_item"),
        ("1: 3.5\n2: 4\n3: 1", "not_an_integer"),
        ("1: 3,5\n2: 4\n3: 1", "not_an_integer"),
        ('{"1": 3.5, "2": 4, "3": 1}', "not_an_integer"),
        ('{"1": true, "2": 4, "3": 1}', "not_an_integer"),
        ('{"1": null, "2": 4, "3": 1}', "not_an_integer"),
        ('{"1": "high", "2": 4, "3": 1}', "not_an_integer"),
        ('{"1": "3 or 4", "2": 4, "3": 1}', "not_an_integer"),
        ('{"1": NaN, "2": 4, "3": 1}', "not_an_integer"),
        ('{"1": Infinity, "2": 4, "3": 1}', "not_an_integer"),
        ('{"1": [3], "2": 4, "3": 1}', "not_an_integer"),
        ("1: 7\n2: 4\n3: 1", "out_of_range"),
        ("1: 0\n2: 4\n3: 1", "out_of_range"),
        ("1: -3\n2: 4\n3: 1", "out_of_range"),
        ("1: \N{MINUS SIGN}3\n2: 4\n3: 1", "out_of_range"),
        ('{"1": 1e300, "2": 4, "3": 1}', "out_of_range"),
        ('{"1": ' + "9" * 4000 + ', "2": 4, "3": 1}', "not_an_integer"),
        ("1: 4\n2: 4\n3: 4", "all_tied"),
    ],
)
def test_what_is_in_doubt_is_refused_with_its_reason(text, reason):
    found = read_scores(text, 3)
    assert isinstance(found, Unusable) and found.reason == reason and found.detail


def test_a_ranked_list_of_numbers_in_brackets_is_not_taken_for_scores():
    assert read_scores("1. [3] - the hardest\n2. [1] - medium\n3. [2] - easy", 3).reason == "no_scores"


def test_two_texts_may_have_the_same_score_and_three_may_not():
    assert read_scores("1: 4\n2: 4", 2) == [4, 4]
    assert read_scores("1: 4\n2: 4\n3: 5", 3) == [4, 4, 5]
    assert read_scores("1: 4\n2: 4\n3: 4", 3).reason == "all_tied"


def test_a_detail_names_numbers_and_nothing_of_the_text():
    assert read_scores('{"1": "secret", "2": 1}', 2).detail == "the score of number 1 is not a whole number"
    assert read_scores("2: 3", 4).detail == "it does not score number 1, 3, 4 of 4"


@given(st.lists(st.integers(1, 6), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_what_is_written_is_read_back_in_any_order_and_form(scores, shuffler):
    numbered = list(enumerate(scores, start=1))
    shuffler.shuffle(numbered)
    forms = [
        json.dumps({str(number): score for number, score in numbered}),
        json.dumps([{"id": number, "score": str(score)} for number, score in numbered]),
        "\n".join(f"[{number}] score: {score}" for number, score in numbered),
        ", ".join(f"{number}: {score}" for number, score in numbered),
        "".join(f"| {number} | {score} |\n" for number, score in numbered),
        json.dumps(scores),
    ]
    tied = len(scores) > 2 and len(set(scores)) == 1
    for form in forms:
        found = read_scores(f"Well.\n{form}\nThat is all.", len(scores))
        assert found.reason == "all_tied" if tied else found == scores


@given(st.text() | st.text(alphabet="0123456[]{}():,.=-/|\"'# \nscoreitm"), st.integers(1, 7))
@example('{"1":' * 400, 3)
@example("[" * 5000, 3)
def test_no_text_is_too_odd(text, count):
    found = read_scores(text, count)
    if not isinstance(found, Unusable):
        assert len(found) == count and all(type(score) is int and 1 <= score <= 6 for score in found)
    assert isinstance(read_score(text), int | Unusable)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["1", "2", "score", "scores", "item"]), inner)
        ),
        max_leaves=12,
    )
)
def test_no_json_is_too_odd(value):
    text = json.dumps(value)
    assert isinstance(read_scores(text, 2), list | Unusable)
    assert isinstance(read_score(text), int | Unusable)


@pytest.mark.parametrize(
    "piece", ["a ", "1 ", ", ", "((", "1: 3, ", "| 1 ", "a1", ": ", "-", "[1] a: ", " \t", "\"'", "1,", "{[", "1."]
)
def test_a_long_answer_takes_no_long_time(piece):
    before = time.process_time()
    read_scores(piece * (12_000 // len(piece)), 3)
    read_score(piece * (12_000 // len(piece)))
    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", 4),
        ("**4/6**", 4),
        ("Score: 4", 4),
        ('{"score": 4}', 4),
        ('```json\n{"score": "4", "reason": "2 parts"}\n```', 4),
        ('{"complexity": 4, "steps": 2}', 4),
        ("[4]", 4),
        ("I would give it a 4.", 4),
        ("Score: 4\nIt has 3 parts and 2 limits.", 4),
        ("<think>6? 5?</think>4", 4),
        ("评分\N{FULLWIDTH COLON}\N{FULLWIDTH DIGIT FOUR}", 4),
        ("", "no_scores"),
        ("hard", "no_scores"),
        ("4 or 5", "several_scores"),
        ("4 out of 6", "several_scores"),
        ('{"score": 4} {"score": 4}', "several_scores"),
        ("Score: 4\nScore: 5", "several_scores"),
        ("4.5", "not_an_integer"),
        ('{"score": null}', "not_an_integer"),
        ("7", "out_of_range"),
        ("Score: -4", "out_of_range"),
    ],
)
def test_one_score(text, score):
    found = read_score(text)
    assert (found.reason if isinstance(found, Unusable) else found) == score


def test_a_small_models_ramble_is_refused_and_not_guessed():
    text = "1. Easy: The user asks for a number.\n2. Medium: The user asks for 2 numbers.\n3. Hard: 3 numbers."
    assert read_scores(text, 3).reason == "no_scores"
    assert read_score(text).reason == "several_scores"
