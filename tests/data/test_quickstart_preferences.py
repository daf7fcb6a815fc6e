"""The generated preference pairs: their truth, that length does not decide, and that they share no task with others."""

import json
import subprocess
import sys
from collections import Counter
from itertools import product
from statistics import mean

import pytest

from deita_train.data.builtin import PREFERENCES, builtin_preferences
from deita_train.data.preferences import PreferenceSource, build_preferences
from deita_train.data.quickstart import (
    make_heldout,
    make_heldout_preferences,
    make_pool,
    make_preferences,
    make_pretraining_rows,
    make_scorer_rows,
)
from deita_train.data.quickstart.answers import EVASIONS
from deita_train.data.quickstart.tasks import TASK_FAMILIES

PAIRS = make_preferences(2000, seed=7)
HELDOUT = make_heldout_preferences(1000, seed=7)
COLUMNS = {"id", "prompt", "chosen", "rejected", "source", "chosen_quality", "rejected_quality"}


def questions(rows):
    return [message["content"] for row in rows for message in row["prompt"] if message["role"] == "user"]


@pytest.mark.parametrize("rows", [PAIRS, HELDOUT])
def test_rows_have_the_stated_columns_and_qualities(rows):
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == COLUMNS
        assert row["chosen_quality"] in (4, 5, 6) and row["rejected_quality"] in (1, 2, 3, 4)
        assert row["chosen_quality"] - row["rejected_quality"] >= 2
        assert row["chosen"] != row["rejected"]
    gaps = Counter((row["chosen_quality"], row["rejected_quality"]) for row in rows)
    assert set(gaps) == {(good, bad) for good, bad in product((4, 5, 6), (1, 2, 3, 4)) if good - bad >= 2}
    assert min(gaps.values()) > 0.04 * len(rows)
    assert {row["source"] for row in rows} == set(TASK_FAMILIES)


def test_both_answers_are_to_the_prompts_last_task():
    thorough = [row for row in PAIRS if row["chosen_quality"] == 6 and row["rejected_quality"] in (3, 4)]
    assert len(thorough) > 100
    for row in thorough:
        answer = row["chosen"].rsplit("Final answer: ", 1)[1].removesuffix(".")
        first_step = row["chosen"].split("Step 1: ", 1)[1].split(". Step 2: ", 1)[0].split(". Check: ", 1)[0]
        if row["rejected_quality"] == 4:
            assert row["rejected"] in (f"{answer}.", f"It is {answer}.", f"Answer: {answer}.")
        else:
            assert row["rejected"].startswith(first_step) and not row["rejected"].endswith(f" {answer}.")
        number = next((word for word in first_step.split() if word.isdigit()), None)
        if row["source"] == "arithmetic":
            assert number in row["prompt"][-1]["content"]


def test_evasive_answers_are_the_worst():
    evasive = [row for row in PAIRS if row["rejected_quality"] == 1]
    assert evasive and all(row["rejected"].startswith(EVASIONS) for row in evasive)
    assert not any(row["chosen"].startswith(EVASIONS) for row in PAIRS)


@pytest.mark.parametrize("rows", [PAIRS, HELDOUT])
def test_length_does_not_decide(rows):
    assert 0.45 < mean(len(row["chosen"]) > len(row["rejected"]) for row in rows) < 0.55
    longer = [row for row in rows if len(row["chosen"]) > len(row["rejected"])]
    # Neither way round is one kind of answers alone.
    assert {row["rejected_quality"] for row in longer} == {1, 2, 3, 4}
    assert {row["chosen_quality"] for row in rows if row not in longer} == {4, 5, 6}


@pytest.mark.parametrize("rows", [PAIRS, HELDOUT])
def test_some_prompts_have_an_earlier_turn(rows):
    roles = Counter(tuple(message["role"] for message in row["prompt"]) for row in rows)
    assert set(roles) == {("user",), ("user", "assistant", "user")}
    assert 0.2 < roles["user", "assistant", "user"] / len(rows) < 0.3


def test_the_pairs_share_no_question_with_the_pool_the_pretraining_or_the_heldout_data():
    training, heldout = set(questions(PAIRS)), set(questions(HELDOUT))
    assert len(training) == len(questions(PAIRS)) and len(heldout) == len(questions(HELDOUT))
    others = [
        {message["content"] for row in rows for message in row["messages"] if message["role"] == "user"}
        for rows in (make_pool(1500, 7), make_pretraining_rows(1500, 7), make_heldout(500, 7))
    ]
    assert not training & heldout
    assert not any(training & asked for asked in others)
    assert not any(heldout & asked for asked in others[:2])
    assert not heldout & {row["instruction"] for row in make_scorer_rows("quality", 1500, 7)}


def test_seeds_and_numbers():
    assert make_preferences(30, 1) == make_preferences(40, 1)[:30] != make_preferences(30, 2)
    assert [len(make(1, 0)) for make in PREFERENCES.values()] == [1, 1]


def test_another_process_generates_the_same_pairs():
    program = (
        "import json; from deita_train.data.quickstart import *; "
        "print(json.dumps([make_preferences(20, 9), make_heldout_preferences(20, 9)]))"
    )
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    assert json.loads(output) == [make_preferences(20, 9), make_heldout_preferences(20, 9)]


@pytest.mark.parametrize("name", ["quickstart_preferences", "quickstart_heldout_preferences"])
def test_they_are_read_as_prompt_pairs_without_a_drop(name):
    rows = builtin_preferences(name, 200, 3)
    assert rows[4].where == f"{name}, row 4"
    pairs, report = build_preferences(PreferenceSource(name, rows))
    assert (report.format, report.rows_in, report.rows_out, report.drops) == ("prompt_pairs", 200, 200, {})
    assert pairs["id"][:] == [row.row["id"] for row in rows]
    assert pairs["prompt"][:] == [row.row["prompt"] for row in rows]
    assert pairs["chosen_quality"][:] == [row.row["chosen_quality"] for row in rows]
