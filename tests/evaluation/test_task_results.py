"""Figures of tasks and groups against hand computations. The harness takes no part."""

import math

import numpy as np
import pytest

from deita_train.evaluation.results import mean_of_tasks, mean_result
from deita_train.evaluation.task_results import (
    NO_SCORE,
    GroupOutcome,
    Question,
    TaskOutcome,
    group_result,
    headlines,
    notes,
    questions_digest,
    table_rows,
)


def task(name, *scores, metric="acc", figure=None, better=True, **others):
    """A task with a score for each question; `others` are further metrics' scores."""
    values = {metric: scores, **others}
    questions = [
        Question(n, f"{name}?{n}", "right", "said", {f"{one},none": each[n] for one, each in values.items()})
        for n in range(len(scores))
    ]
    figures = {f"{one},none": float(np.mean(each)) for one, each in values.items()}
    figures |= {} if figure is None else {f"{metric},none": figure}
    return TaskOutcome(name, 0, "1", len(scores), figures, {one: better for one in values}, questions)


def by_name(*tasks):
    return {one.name: one for one in tasks}


def test_a_mean_over_questions_has_an_interval_and_another_figure_has_none():
    share = task("a", 1, 0, 1, 1).result("acc,none")
    assert (share.value, share.questions, share.unit) == (0.75, 4, "share") and share.low < 0.75 < share.high
    # A perplexity is no mean of log-likelihoods.
    other = task("b", -1.0, -3.0, metric="perplexity", figure=math.exp(2), better=False)
    found = other.result("perplexity,none")
    assert (found.value, found.low, found.high, found.unit) == (math.exp(2), None, None, "number")
    assert found.higher_is_better is False
    (row, _) = table_rows(by_name(other), {})
    assert (row["score"], row["reason"], row["metric"]) == (None, NO_SCORE, "perplexity")


def test_the_first_metric_counts_unless_another_is_named():
    one = task("arc_challenge", 1, 0, acc_norm=(1, 1))
    assert [row["score"] for row in table_rows(by_name(one), {})] == [1, 0]
    rows = table_rows(by_name(one), {"arc_challenge": "acc_norm"})
    assert [(row["id"], row["score"], row["metric"]) for row in rows] == [
        ("arc_challenge/0", 1, "acc_norm"),
        ("arc_challenge/1", 1, "acc_norm"),
    ]


def test_a_group_weighs_its_tasks_by_their_questions_or_equally():
    tasks = by_name(task("x", 1, 1, 1, 0), task("y", 0, 0))
    by_size = GroupOutcome("g", ["x", "y"], ["x", "y"], {"acc,none": 3 / 6})
    equally = GroupOutcome("g", ["x", "y"], ["x", "y"], {"acc,none": (3 / 4 + 0) / 2})
    for group in (by_size, equally):
        found = group_result(group, tasks)
        assert found.value == pytest.approx(group.figures["acc,none"]) and found.questions == 6
        assert found.low <= found.value <= found.high
    # In the second all of `y` is wrong, whatever is drawn, so the share is at most a half.
    assert group_result(equally, tasks).high <= 0.5
    unknown = GroupOutcome("g", ["x", "y"], ["x", "y"], {"acc,none": 0.1})
    assert (group_result(unknown, tasks).value, group_result(unknown, tasks).low) == (0.1, None)


def test_a_name_has_one_figure_and_a_group_without_one_has_its_members():
    tasks = by_name(task("x", 1, 0), task("y", 1, 1), task("z", 0, 0))
    groups = {
        "inner": GroupOutcome("inner", ["y"], ["y"], {"acc,none": 1.0}),
        "outer": GroupOutcome("outer", ["y", "z"], ["inner", "z"], {}),
    }
    found = headlines({"x": ["x"], "outer": ["y", "z"]}, tasks, groups)
    assert {name: result.value for name, result in found.items()} == {"x": 0.5, "inner": 1.0, "z": 0.0}
    assert list(headlines({"tag": ["x", "y"]}, tasks, groups)) == ["x", "y"]


def test_the_leaderboards_mean_weighs_its_four_tasks_equally():
    tasks = by_name(
        task("arc_challenge", 0, 0, acc_norm=(1, 0)),
        task("hellaswag", 0, acc_norm=(1,)),
        task("mmlu_a", 1, 1, 1),
        task("mmlu_b", 0),
        task("truthfulqa_mc2", 0.2, 0.4),
        task("own", 1),
    )
    names = list(tasks)[:5]
    groups = {
        "open_llm_v1": GroupOutcome("open_llm_v1", names, ["arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2"], {}),
        "mmlu": GroupOutcome("mmlu", ["mmlu_a", "mmlu_b"], ["mmlu_a", "mmlu_b"], {"acc,none": 0.75}),
    }
    found = headlines({"own": ["own"], "open_llm_v1": names}, tasks, groups)
    assert list(found) == ["mean", "arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2", "own"]
    assert [found[name].value for name in list(found)[1:5]] == pytest.approx([0.5, 1.0, 0.75, 0.3])
    assert found["mean"].value == pytest.approx((0.5 + 1.0 + 0.75 + 0.3) / 4) and found["mean"].questions == 9
    assert found["mean"].low is None  # a single question of hellaswag has no interval


def test_the_interval_of_groups_is_that_of_independent_means():
    drawn = np.random.default_rng(3)
    groups = [(drawn.random(400) < share).astype(float).tolist() for share in (0.2, 0.5, 0.9)]
    found = mean_of_tasks(groups, "share")
    error = math.sqrt(sum(np.var(values) / len(values) for values in groups)) / 3
    assert found.value == pytest.approx(np.mean([np.mean(values) for values in groups]))
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)
    assert mean_of_tasks(groups[:1], "share", 4) == mean_result(groups[0], "share", 4)


def test_the_notes_say_what_the_figures_are():
    tasks = by_name(task("x", 1))
    how = {"templated": False, "limit": None, "num_fewshot": None, "cut": 0}
    assert len(notes("0.4.13", tasks, ["x"], **how)) == 1
    found = notes("0.4.13", tasks, ["open_llm_v1"], **{**how, "limit": 5, "num_fewshot": 3, "cut": 1200})
    assert [any(part in note for note in found) for part in ("57 subjects", "first 5 questions", ": x.", "1,200")] == [
        True
    ] * 4


def test_the_digest_is_of_questions_and_targets_alone():
    one, other = task("x", 1, 0), task("x", 0, 0)
    assert questions_digest(one.questions) == questions_digest(other.questions)
    assert questions_digest(one.questions) != questions_digest(task("y", 1, 0).questions)
