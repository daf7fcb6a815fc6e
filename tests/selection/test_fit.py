"""GRAPE's choice by hand, and against a brute force over groups of rows that share an instruction."""

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from select_by import select_by

from deita_train.errors import UserError


def chat(*texts, system=None):
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


def kept(messages, perplexities, budget=None, **more):
    ids = [f"r{number:02}" for number in range(len(messages))]
    rows = datasets.Dataset.from_dict({"id": ids, "messages": messages, "ppl": perplexities})
    trace = select_by("fit", rows, budget, column="ppl", **more)
    return [ids[int(place)] for place in trace.kept]


def test_the_likeliest_answer_to_each_instruction():
    messages = [chat("2+2?", "4"), chat("2+2?", "four"), chat("Hi", "Hello"), chat(" 2+2? ", "It is 4.")]
    # The three answers to one question have 3, 2 and 2; of equals the lowest id. The other instruction has one answer.
    assert kept(messages, [3.0, 2.0, 1.5, 2.0]) == ["r02", "r01"]
    assert kept(messages, [3.0, 2.0, 9.0, 2.0], 1) == ["r01"]
    assert kept(messages, [3.0, 2.0, 1.5, 2.0], among="pool") == ["r02", "r01", "r03", "r00"]


def test_an_instruction_is_all_that_is_not_the_assistants():
    same = [chat("a", "1", "b", "2"), chat("a", "3", "b", "4")]
    others = [chat("a", "1"), chat("a", "1", "c", "2"), chat("a", "1", "b", "2", system="s")]
    assert kept([*same, *others], [5.0, 4.0, 3.0, 2.0, 1.0]) == ["r04", "r03", "r02", "r01"]


def test_a_pool_without_answers_to_choose_between():
    with pytest.raises(UserError, match=r"no two of the 2 rows share one\. Add other answers .* select.among: pool"):
        kept([chat("a", "1"), chat("b", "1")], [1.0, 2.0])
    assert kept([chat("a", "1")], [1.0]) == ["r00"]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=4, max_size=15), st.integers(1, 5))
def test_agrees_with_a_brute_force(pairs, budget):
    best = {}
    for number, (question, perplexity) in enumerate(pairs):
        best.setdefault(question, []).append((perplexity, f"r{number:02}"))
    wanted = [name for _, name in sorted(min(answers) for answers in best.values())]
    messages = [chat(question, str(number)) for number, (question, _) in enumerate(pairs)]
    assert kept(messages, [float(perplexity) for _, perplexity in pairs], budget) == wanted[:budget]
