"""The labels that all prompts of a task begin and end with are no part of a question."""

import pytest

from deita_train.evaluation.prompt_frames import without_frame

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "kite", "lark"]
QUESTIONS = [f"Is the {name} big?" for name in NAMES]


def framed(before, after, questions=QUESTIONS):
    return [f"{before}{question}{after}" for question in questions]


@pytest.mark.parametrize(
    ("before", "after", "left_before", "left_after"),
    [
        ("Question: ", "\nAnswer:", " ", ""),
        ("Q: Is this so?\nA: Yes\nQ: ", "\nA:", " ", ""),
        ("", "\nA. yes\nB. no\nAnswer:", "", ""),
        ("", "", "", ""),
        ("Dear model, ", " Answer:", "Dear model, ", " Answer:"),  # without a colon before and a line after
    ],
)
def test_what_is_cut_off(before, after, left_before, left_after):
    assert without_frame(framed(before, after)) == framed(left_before, left_after)


def test_few_prompts_and_empty_ones_stay_as_they_are():
    few = framed("Q: ", "\nA:", QUESTIONS[:10])
    assert without_frame(few) == few and without_frame(few * 3) == few * 3
    assert without_frame(["", *framed("Q:", "\nA:")]) == ["", *QUESTIONS]
    assert without_frame([]) == []


def test_a_prompt_that_is_all_frame_is_left_empty():
    texts = ["Q:\nA:", *framed("Q:", "\nA:")]
    assert without_frame(texts) == ["", *QUESTIONS]
