"""The generated sample world: its truth, its planted near-duplicates, and that its data sets share nothing."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.data.quickstart import make_heldout, make_pool, make_pretraining_rows, make_scorer_rows
from deita_train.data.quickstart.answers import ANSWERS, spoil
from deita_train.data.quickstart.near_duplicates import EDITS, edit_question
from deita_train.data.quickstart.tasks import LIST_OPERATIONS, TASK_FAMILIES, Task

SEEDS = st.integers(0, 2**32)
TASK = Task("Start with 3, double it and add 4.", ("3 * 2 = 6", "6 + 4 = 10"), "10")
POOL = make_pool(2400, seed=7)


def texts(rows, role):
    return [message["content"] for row in rows for message in row["messages"] if message["role"] == role]


@pytest.mark.parametrize("family", TASK_FAMILIES)
@given(seed=SEEDS, complexity=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_task_has_one_worked_step_per_operation(family, seed, complexity):
    task = TASK_FAMILIES[family](random.Random(seed), complexity)
    assert task.complexity == len(task.steps) == complexity
    assert len(set(task.steps)) == complexity or family in ("arithmetic", "clock", "word_list")
    assert "{" not in task.instruction and task.answer and all(task.steps)


@given(seed=SEEDS, complexity=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_arithmetic_is_right_and_continues_from_step_to_step(seed, complexity):
    task = TASK_FAMILIES["arithmetic"](random.Random(seed), complexity)
    value = int(re.search(r"\d+", task.instruction)[0])
    for step in task.steps:
        left, sign, right, result = re.fullmatch(r"(\d+) ([-+*]) (\d+) = (\d+)", step).groups()
        assert int(left) == value
        value = {"+": value + int(right), "-": value - int(right), "*": value * int(right)}[sign]
        assert int(result) == value >= 0
    assert task.answer == str(value)


@given(seed=SEEDS, complexity=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_clock_is_right(seed, complexity):
    task = TASK_FAMILIES["clock"](random.Random(seed), complexity)
    moves = [int(sign + move) for sign, move in re.findall(r" ([-+]) (\d+) minutes", " ".join(task.steps))]
    hours, minutes = map(int, re.search(r"(\d\d):(\d\d)", task.instruction).groups())
    target = (60 * hours + minutes + sum(moves)) % 1440
    assert len(moves) == complexity
    assert task.answer == f"{target // 60:02d}:{target % 60:02d}"


@given(seed=SEEDS, complexity=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_every_edit_of_a_sentence_changes_it(seed, complexity):
    task = TASK_FAMILIES["rewriting"](random.Random(seed), complexity)
    sentence = re.search(r"The [^.]*\.", task.instruction)[0].rstrip(".")
    results = [sentence, *(step.split(": ", 1)[1] for step in task.steps)]
    assert all(before != after for before, after in pairwise(results))
    assert results[-1] == task.answer


def test_list_operations_by_hand():
    words = ["tree", "egg", "apple"]
    expected = {
        "Sorted": ["apple", "egg", "tree"],
        "Reversed": ["apple", "egg", "tree"],
        "First dropped": ["egg", "apple"],
        "Last removed": ["tree", "egg"],
        "Swapped": ["apple", "egg", "tree"],
        "Moved": ["egg", "apple", "tree"],
        "In capitals": ["TREE", "EGG", "APPLE"],
        "By length": ["egg", "tree", "apple"],
    }
    assert {title: apply(words) for _, title, apply in LIST_OPERATIONS} == expected


def test_the_qualities_differ_in_what_they_hold():
    for seed in range(50):
        answers = {quality: answer(random.Random(seed), TASK) for quality, answer in ANSWERS.items()}
        assert list(answers) == [1, 2, 3, 4, 5, 6]
        assert not re.search(r"\d", answers[1])
        assert not re.search(r"\b10\b", answers[2])
        assert TASK.steps[0] in answers[3] and TASK.steps[1] not in answers[3]
        assert not re.search(r"\b10\b", answers[3])
        assert re.search(r"\b10\b", answers[4]) and "=" not in answers[4]
        assert all(step in answers[quality] for quality in (5, 6) for step in TASK.steps)
        assert "2 of 2 parts" in answers[6] and "Final answer: 10." in answers[6]


@given(seed=SEEDS, answer=st.sampled_from(["10", "09:15", "Rome", "apple, egg", "120 minutes, 500 cents"]))
def test_a_spoilt_answer_is_wrong_and_of_the_same_shape(seed, answer):
    wrong = spoil(random.Random(seed), answer)
    assert wrong != answer
    assert len(wrong.split()) == len(answer.split())


def test_pool_rows_have_the_stated_columns_and_roles():
    assert len(POOL) == 2400 == len({row["id"] for row in POOL})
    columns = {"id", "messages", "source", "true_complexity", "true_quality", "duplicate_of", "near_duplicate"}
    for row in POOL:
        assert set(row) == columns
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) in (2, 4, 6)
        assert all(message["content"].strip() for message in row["messages"])
        assert 1 <= row["true_complexity"] <= 6 and 1 <= row["true_quality"] <= 6
        assert row["near_duplicate"] == (row["duplicate_of"] is not None)


def test_pool_covers_families_levels_and_turns():
    originals = [row for row in POOL if not row["near_duplicate"]]
    assert set(Counter(row["source"] for row in originals)) == set(TASK_FAMILIES)
    single = [row for row in originals if len(row["messages"]) == 2]
    assert 0.60 < len(single) / len(originals) < 0.74
    for column in ("true_complexity", "true_quality"):
        counts = Counter(row[column] for row in single)
        assert set(counts) == {1, 2, 3, 4, 5, 6} and min(counts.values()) > 0.05 * len(single)
    assert 2.9 < mean(row["true_complexity"] for row in originals) < 3.4
    assert 3.0 < mean(row["true_quality"] for row in originals) < 3.5


def test_near_duplicates_repeat_their_original_but_for_the_first_question():
    by_id = {row["id"]: row for row in POOL}
    copies = [row for row in POOL if row["near_duplicate"]]
    assert len(copies) == round(0.12 * 2400)
    for copy in copies:
        original = by_id[copy["duplicate_of"]]
        assert not original["near_duplicate"]
        assert copy["messages"][1:] == original["messages"][1:]
        assert copy["source"] == original["source"]
        assert (copy["true_complexity"], copy["true_quality"]) == (
            original["true_complexity"],
            original["true_quality"],
        )
    questions = [row["messages"][0]["content"] for row in POOL]
    assert len(set(questions)) == len(questions)


def test_better_rows_are_repeated_more_often():
    def mean_product(near_duplicate):
        rows = [row for seed in range(5) for row in make_pool(1000, seed) if row["near_duplicate"] == near_duplicate]
        return mean(row["true_complexity"] * row["true_quality"] for row in rows)

    assert mean_product(True) > mean_product(False) + 2


@given(seed=SEEDS)
@settings(deadline=None)
def test_an_edited_question_stays_close_to_the_question(seed):
    question = "Please take the words tree, egg and apple, then reverse the order. Which word comes first now?"
    edited = edit_question(random.Random(seed), question)
    assert SequenceMatcher(None, question, edited, autojunk=False).ratio() > 0.55


def test_edits_keep_every_number():
    question = "Hi! Start with 14, add 5, then double it. What do you get? Thanks!"
    for edit in EDITS:
        for seed in range(30):
            assert re.findall(r"\d+", edit(random.Random(seed), question)) == ["14", "5"]


def test_shuffled():
    ids = [row["id"] for row in POOL]
    assert ids != sorted(ids)
    position = mean(index for index, row in enumerate(POOL) if row["near_duplicate"])
    assert 1000 < position < 1400


@pytest.mark.parametrize("num_rows", [1, 2, 7, 9, 240])
def test_any_number_of_rows(num_rows):
    assert len(make_pool(num_rows, 0)) == num_rows
    assert len(make_heldout(num_rows, 0)) == num_rows
    assert len(make_pretraining_rows(num_rows, 0)) == num_rows
    assert len(make_scorer_rows("quality", num_rows, 0)) == num_rows


def test_scorer_rows_state_the_asked_dimension_of_the_same_turns():
    complexity, quality = make_scorer_rows("complexity", 400, 3), make_scorer_rows("quality", 400, 3)
    for one, other in zip(complexity, quality, strict=True):
        assert set(one) == {"instruction", "response", "score"}
        assert (one["instruction"], one["response"]) == (other["instruction"], other["response"])
    for rows in (complexity, quality):
        assert set(Counter(row["score"] for row in rows)) == {1, 2, 3, 4, 5, 6}
    thorough = [row for row in quality if row["score"] == 6]
    assert thorough and all("Final answer: " in row["response"] for row in thorough)


def test_length_alone_does_not_tell_complexity_or_quality():
    complexity, quality = make_scorer_rows("complexity", 1500, 3), make_scorer_rows("quality", 1500, 3)
    lengths = {level: [len(r["instruction"]) for r in complexity if r["score"] == level] for level in range(1, 7)}
    assert max(lengths[1]) > mean(lengths[4]) and min(lengths[6]) < mean(lengths[3])
    lengths = {level: [len(r["response"]) for r in quality if r["score"] == level] for level in range(1, 7)}
    assert mean(lengths[1]) > 2 * mean(lengths[4])
    assert min(lengths[6]) < mean(lengths[1]) and max(lengths[2]) > mean(lengths[5])


def test_heldout_answers_are_all_of_top_quality_at_every_complexity():
    rows = make_heldout(300, 5)
    answers = texts(rows, "assistant")
    assert all(set(row) == {"id", "messages", "source"} for row in rows)
    parts = [re.search(r"Check: (\d) of \1 parts are done\. Final answer: .+\.$", answer) for answer in answers]
    assert all(parts)
    assert set(Counter(part[1] for part in parts)) == set("123456")
    assert {row["source"] for row in rows} == set(TASK_FAMILIES)


def test_pretraining_rows_rarely_answer_thoroughly():
    answers = texts(make_pretraining_rows(1000, 5), "assistant")
    assert 0 < sum("Final answer: " in answer for answer in answers) < 0.05 * len(answers)


@pytest.mark.parametrize("seeds", [(0, 0, 0, 0), (1, 2, 3, 4)])
def test_the_data_sets_share_no_question(seeds):
    pool, scorer, heldout, pretraining = seeds
    questions = [
        set(texts(make_pool(1500, pool), "user")),
        {row["instruction"] for row in make_scorer_rows("quality", 1500, scorer)},
        set(texts(make_heldout(500, heldout), "user")),
        set(texts(make_pretraining_rows(2000, pretraining), "user")),
    ]
    assert sum(map(len, questions)) == len(set().union(*questions))


def test_other_seeds_give_other_rows():
    assert make_pool(50, 1) != make_pool(50, 2)
    first = {row["instruction"] for row in make_scorer_rows("complexity", 1000, 1)}
    second = {row["instruction"] for row in make_scorer_rows("complexity", 1000, 2)}
    assert len(first & second) < 10


def test_another_process_generates_the_same_rows():
    program = (
        "import json; from deita_train.data.quickstart import *; "
        "print(json.dumps([make_pool(60, 9), make_scorer_rows('quality', 20, 9), make_heldout(5, 9)]))"
    )
    # A fixed hash seed other than this process's random one: nothing may hang on hash() of a str.
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    assert json.loads(output) == [make_pool(60, 9), make_scorer_rows("quality", 20, 9), make_heldout(5, 9)]
