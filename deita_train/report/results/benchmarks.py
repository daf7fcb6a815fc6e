"""Benchmarks of a run, read from the metric `results` that every kind of benchmark writes alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import datasets

from deita_train.evaluation.results import PairedDifference, Result, Unit, paired_difference
from deita_train.report.results.summary import Artefact

RESULTS = "results"
# By the last part of their labels: the models that benchmarks measure, in the order of a run.
MODELS = {"base": "base", "sft": "SFT", "dpo": "DPO", "served": "served"}


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of one cell.

    Attributes:
        label: of its stages, without the model's part.
        title: what it is called.
        models: the artefact of each model that it measured, the untuned one first.
    """

    label: str
    title: str
    models: Mapping[str, Artefact]

    def results(self, model: str) -> dict[str, Result]:
        """The figures of a model by name, the headline first."""
        return results_of(self.models[model])

    @property
    def figures(self) -> dict[str, Result]:
        """Every figure that a model has, by name, as its first model has it."""
        found: dict[str, Result] = {}
        for model in self.models:
            for name, result in self.results(model).items():
                found.setdefault(name, result)
        return found

    @property
    def notes(self) -> list[str]:
        """What the figures are comparable with, each sentence once."""
        return list(dict.fromkeys(note for item in self.models.values() for note in item.metrics.get("notes", ())))


@dataclass(frozen=True)
class ModelDifference:
    """How far apart two models are on the same questions.

    Attributes:
        task: of a benchmark with several; empty for one without.
        later: the model whose mean comes first.
        earlier: the model whose mean is subtracted.
        difference: of the two, question by question.
        unit: of the difference.
    """

    task: str
    later: str
    earlier: str
    difference: PairedDifference
    unit: Unit


def results_of(item: Artefact) -> dict[str, Result]:
    """The figures of one artefact by name, the headline first; nothing of a stage that is no benchmark."""
    return {name: Result.of_metric(found) for name, found in item.metrics.get(RESULTS, {}).items()}


def benchmarks_of(stages: Mapping[str, Artefact]) -> list[Benchmark]:
    """The benchmarks among the stages of a cell, in their order."""
    found: dict[str, dict[str, Artefact]] = {}
    for label, item in stages.items():
        name, _, model = label.rpartition(".")
        if model in MODELS and item.metrics.get(RESULTS):
            found.setdefault(name, {})[model] = item
    return [_benchmark(label, models) for label, models in found.items()]


def _benchmark(label: str, models: Mapping[str, Artefact]) -> Benchmark:
    ordered = {model: models[model] for model in MODELS if model in models}
    title = next(iter(ordered.values())).metrics.get("title", label)
    return Benchmark(label, title, ordered)


def differences_of(benchmark: Benchmark) -> Iterator[ModelDifference]:
    """Each later model against each earlier one, task by task, over the questions that both have a score for."""
    scores = {model: scores_of(item) for model, item in benchmark.models.items()}
    for earlier, later in combinations(benchmark.models, 2):
        for task in scores[later]:
            found = paired_difference(scores[later][task], scores[earlier].get(task, {}))
            if found is not None:
                yield ModelDifference(task, later, earlier, found, unit_of(benchmark.models[later], task))


def unit_of(item: Artefact, task: str) -> Unit:
    """Of a task's rows: a headline in percent is a share of each row."""
    results = results_of(item)
    unit = results.get(task, next(iter(results.values()))).unit
    return "share" if unit == "percent" else unit


def scores_of(item: Artefact) -> dict[str, dict[str, float]]:
    """By task ("" where there is none) and question, the mean score of its rows; without rows that have no score.

    The turns of a question are one unit: they are not independent of each other.
    """
    table = datasets.load_from_disk(str(item.folder / "data"))
    columns = {name: table[name] for name in ("id", "question_id", "task", "score") if name in table.column_names}
    ids = columns.get("question_id", columns["id"])
    tasks = _groups(columns["task"], list(results_of(item))) if "task" in columns else [""] * len(table)
    found: dict[str, dict[str, list[float]]] = {}
    for task, name, score in zip(tasks, ids, columns["score"], strict=True):
        if score is not None:
            found.setdefault(task, {}).setdefault(name, []).append(score)
    return {
        task: {name: sum(scores) / len(scores) for name, scores in of_task.items()} for task, of_task in found.items()
    }


def _groups(tasks: list[str], figures: list[str]) -> list[str]:
    """The figure that a row's task belongs to: its own, or that of a group whose name begins it."""

    def group(task: str) -> str:
        groups = [name for name in figures if task == name or task.startswith(f"{name}_")]
        return max(groups, key=len, default=task)

    named = {task: group(task) for task in dict.fromkeys(tasks)}
    return [named[task] for task in tasks]
