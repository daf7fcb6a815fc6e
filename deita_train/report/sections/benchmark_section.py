"""The section on benchmarks: every figure of the base run's models, and whether they differ on the same questions."""

from __future__ import annotations

from collections.abc import Sequence

from deita_train.evaluation.result_text import difference_text, result_text
from deita_train.number_text import ABSENT, MINUS, count
from deita_train.report.results.benchmarks import MODELS, Benchmark, benchmarks_of, differences_of
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import RunSummary
from deita_train.report.sections.section import Section
from deita_train.table import Table, numbers, words

TITLE = "Benchmarks"
_TEXT = (
    "Figures of the base run's models, with 95% intervals over questions (bootstrap) where there are any: other "
    "questions of the same kind would give other figures. Other seeds of a training are not in these intervals."
)
_DIFFERENCES = (
    "The same questions under two models, question by question; of shares in percentage points. Where the interval "
    "holds zero, these questions do not tell the two models apart."
)


def benchmark_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """A table for each benchmark, and one of the differences between models."""
    found = benchmarks_of(summary.base_cell.stages)
    if not found:
        return None
    tables = [_figures(benchmark) for benchmark in found]
    differences = [row for benchmark in found for row in _differences(benchmark)]
    if differences:
        columns = (*words("benchmark", "models"), *numbers("difference", "questions"), *words("interval"))
        tables.append(Table(columns, tuple(differences), "Differences between models", note=_DIFFERENCES))
    return Section(TITLE, _TEXT, tuple(tables))


def _figures(benchmark: Benchmark) -> Table:
    """A row for each figure, a column for each model."""
    columns = (*words("figure"), *numbers(*(MODELS[model] for model in benchmark.models), "questions"))
    by_model = {model: benchmark.results(model) for model in benchmark.models}
    rows = []
    for name, first in benchmark.figures.items():
        found = [results[name] for results in by_model.values() if name in results]
        texts = [result_text(results[name]) if name in results else ABSENT for results in by_model.values()]
        direction = " (lower is better)" if first.higher_is_better is False else ""
        questions = {count(result.questions) for result in found}
        rows.append((f"{name}{direction}", *texts, " / ".join(sorted(questions))))
    return Table(columns, tuple(rows), benchmark.title, note=" ".join(benchmark.notes))


def _differences(benchmark: Benchmark) -> list[tuple[str, ...]]:
    return [
        (
            f"{benchmark.title}: {found.task}" if found.task else benchmark.title,
            f"{MODELS[found.later]} {MINUS} {MODELS[found.earlier]}",
            difference_text(found.difference, found.unit),
            count(found.difference.questions),
            "holds zero" if found.difference.holds_zero else "excludes zero",
        )
        for found in differences_of(benchmark)
    ]
