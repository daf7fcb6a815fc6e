"""Figures of tasks and of groups of tasks, with intervals over questions, and the sentences that belong to them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deita_train.evaluation.open_llm import OPEN_LLM_V1, OPEN_LLM_V1_TASKS
from deita_train.evaluation.results import Result, Unit, mean_of_tasks, mean_result

MEAN = "mean"
NO_SCORE = "measured_over_all_questions_together"
# The harness computes a mean in another order than this module.
_SAME = 1e-9


@dataclass(frozen=True)
class Question:
    """One question of a task and what became of it.

    Attributes:
        document: its number in the task.
        text: what is asked, without examples.
        target: the right answer.
        answer: the model's; None where it is none in words.
        scores: by "metric,filter", those that one question has.
    """

    document: int
    text: str
    target: str
    answer: str | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class TaskOutcome:
    """One task of the harness.

    Attributes:
        name: its name.
        shots: examples before each question.
        version: of its definition.
        available: how many questions it has; measured are `questions`.
        figures: the harness's own, by "metric,filter".
        higher_is_better: by metric; None where neither is.
        questions: in order.
    """

    name: str
    shots: int
    version: str
    available: int
    figures: Mapping[str, float]
    higher_is_better: Mapping[str, bool | None]
    questions: Sequence[Question]

    def key(self, metric: str | None = None) -> str:
        """The "metric,filter" of a metric with its first filter; by default of the task's first metric."""
        return next(name for name in self.figures if metric is None or name.partition(",")[0] == metric)

    def scores(self, key: str) -> list[float] | None:
        """Each question's score, where the figure is their mean."""
        values = [question.scores[key] for question in self.questions if key in question.scores]
        if len(values) < len(self.questions) or not np.isclose(np.mean(values), self.figures[key], rtol=0, atol=_SAME):
            return None
        return values

    def result(self, key: str) -> Result:
        """A figure with its interval, where it is a mean over questions."""
        better = self.higher_is_better.get(key.partition(",")[0])
        values = self.scores(key)
        if values is None:
            return Result(self.figures[key], None, None, len(self.questions), "number", better)
        return mean_result(values, _unit(values), higher_is_better=better)

    def as_metric(self) -> dict[str, Any]:
        """All figures, and what they were measured with and on."""
        return {
            "shots": self.shots,
            "version": self.version,
            "questions": len(self.questions),
            "available": self.available,
            "digest": questions_digest(self.questions),
            "figures": {key: self.result(key).as_metric() for key in self.figures},
        }


@dataclass(frozen=True)
class GroupOutcome:
    """A group of the harness.

    Attributes:
        name: its name.
        tasks: the names of all its tasks.
        members: the names of its direct members.
        figures: of the group as a whole, by "metric,filter"; none where the harness aggregates nothing.
    """

    name: str
    tasks: Sequence[str]
    members: Sequence[str]
    figures: Mapping[str, float]

    def key(self) -> str:
        """The "metric,filter" of its first figure."""
        return next(iter(self.figures))


def group_result(group: GroupOutcome, tasks: Mapping[str, TaskOutcome]) -> Result:
    """A group's figure; its interval is over the questions of all its tasks, however the harness weighs these."""
    key = group.key()
    members = [tasks[name] for name in group.tasks if key in tasks[name].figures]
    scores = [task.scores(key) for task in members]
    better = members[0].higher_is_better.get(key.partition(",")[0])
    value, count = group.figures[key], sum(len(task.questions) for task in members)
    known = [values for values in scores if values is not None]
    if len(known) == len(scores):
        together = [score for values in known for score in values]
        unit = _unit(together)
        for result in (mean_result(together, unit, 0, better), mean_of_tasks(known, unit, 0, better)):
            if abs(result.value - value) <= _SAME:
                return result
    return Result(value, None, None, count, "number", better)


def headlines(
    by_name: Mapping[str, Sequence[str]], tasks: Mapping[str, TaskOutcome], groups: Mapping[str, GroupOutcome]
) -> dict[str, Result]:
    """The figures to show: the mean of the leaderboard and its tasks, and one for each name of the recipe.

    A group without a figure of its own, and a tag, have one for each of their members.

    Args:
        by_name: the tasks behind each name of the recipe.
        tasks: the outcomes by name.
        groups: the groups' by name.
    """
    found: dict[str, Result] = {}
    for name, of_name in by_name.items():
        if name == OPEN_LLM_V1:
            found = {**open_llm(tasks, groups), **found}
        elif name in groups:
            found |= _of_group(groups[name], tasks, groups)
        else:
            found |= {task: tasks[task].result(tasks[task].key()) for task in of_name}
    return found


def _of_group(
    group: GroupOutcome, tasks: Mapping[str, TaskOutcome], groups: Mapping[str, GroupOutcome]
) -> dict[str, Result]:
    if group.figures:
        return {group.name: group_result(group, tasks)}
    found: dict[str, Result] = {}
    for name in group.members:
        found |= (
            _of_group(groups[name], tasks, groups) if name in groups else {name: tasks[name].result(tasks[name].key())}
        )
    return found


def open_llm(tasks: Mapping[str, TaskOutcome], groups: Mapping[str, GroupOutcome]) -> dict[str, Result]:
    """The four tasks of the leaderboard by their metrics, after their mean; its interval resamples within each."""
    found = {}
    scores = []
    for one in OPEN_LLM_V1_TASKS:
        members = [tasks[name] for name in groups[one.name].tasks] if one.name in groups else [tasks[one.name]]
        keys = [task.key(one.metric) for task in members]
        values = [value for task, key in zip(members, keys, strict=True) for value in task.scores(key) or ()]
        assert len(values) == sum(len(task.questions) for task in members), f"{one.metric} is no mean over questions"
        found[one.name] = mean_result(values, "share")
        scores.append(values)
    return {MEAN: mean_of_tasks(scores, "share"), **found}


def table_rows(tasks: Mapping[str, TaskOutcome], metrics: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each question: what is asked and answered, and its score by the task's headline metric.

    Args:
        tasks: the outcomes by name.
        metrics: the metric of a task, where it is not its first.
    """
    rows = []
    for name, task in tasks.items():
        key = task.key(metrics.get(name))
        means = task.scores(key) is not None
        for question in task.questions:
            rows.append(
                {
                    "id": f"{name}/{question.document}",
                    "task": name,
                    "question": question.text,
                    "target": question.target,
                    "answer": question.answer,
                    "metric": key.partition(",")[0],
                    "score": question.scores[key] if means else None,
                    "reason": None if means else NO_SCORE,
                }
            )
    return rows


def questions_digest(questions: Sequence[Question]) -> str:
    """A hash of what was asked and of the right answers: equal for equal data, wherever it came from."""
    listing = [[question.document, question.text, question.target] for question in questions]
    return hashlib.sha256(json.dumps(listing, ensure_ascii=False).encode()).hexdigest()


def notes(
    harness: str,
    tasks: Mapping[str, TaskOutcome],
    names: Sequence[str],
    *,
    templated: bool,
    limit: int | None,
    num_fewshot: int | None,
    cut: int,
) -> list[str]:
    """What the figures are comparable with, in sentences."""
    found = [
        f"lm-evaluation-harness {harness}, asked through the chat template with each example as a turn of its own: not "
        "comparable with figures without a template."
        if templated
        else f"lm-evaluation-harness {harness}, with the tasks' plain prompts and no chat template: not comparable "
        "with figures through one."
    ]
    if OPEN_LLM_V1 in names:
        found.append(
            "The shots and metrics of the Open LLM Leaderboard (v1) as in the paper, by today's task definitions, so "
            "published figures are comparable only roughly; mmlu is the mean over all questions, and the leaderboard's "
            "that over 57 subjects."
        )
    if limit is not None:
        found.append(f"Only the first {limit:,} questions of each task: a trial, and no figure of the benchmark.")
    kept = sorted(name for name, task in tasks.items() if num_fewshot is not None and task.shots != num_fewshot)
    if kept:
        found.append(f"Of their own number of examples, in spite of num_fewshot: {', '.join(kept)}.")
    if cut:
        found.append(f"{cut:,} requests do not fit in the model's context; their beginning, examples first, is cut.")
    return found


def _unit(values: Sequence[float]) -> Unit:
    return "share" if all(0 <= value <= 1 for value in values) else "number"
