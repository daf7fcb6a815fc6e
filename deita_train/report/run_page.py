"""Writes runs side by side as Markdown, into the first run's folder beside its own report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from deita_train.errors import UserError
from deita_train.evaluation.result_text import difference_text, result_text
from deita_train.number_text import ABSENT, MINUS, count
from deita_train.report.results.groups import groups_of
from deita_train.report.results.run_comparison import (
    Compared,
    ComparedRun,
    RunDifference,
    compared_benchmarks,
    differences_from_first,
    figures_of,
)
from deita_train.report.results.summary import read_summary
from deita_train.report.tables.published_table import published_in_runs, published_rows
from deita_train.store.atomic_io import write_text_atomically
from deita_train.table import Table, escape_markdown, numbers, words

FOLDER = "compared"
_INTERVALS = (
    "The last model of each run, with 95% intervals over questions (bootstrap) where there are any. Other seeds of a "
    "training are not in these intervals."
)
_PAIRED = "Over the same questions, question by question; of shares in percentage points."


def read_runs(folders: Sequence[tuple[Path, Path]]) -> list[ComparedRun]:
    """Read runs, each a folder with its store; folders of one name are told apart by their paths.

    Raises:
        UserError: as `read_summary`; or a run is named twice.
    """
    places = [run_dir.resolve() for run_dir, _ in folders]
    for place, (run_dir, _) in enumerate(folders):
        if places[place] in places[:place]:
            raise UserError(f"{run_dir} is named twice: name runs that differ.")
    names = [place.name for place in places]
    shown = names if len(set(names)) == len(names) else list(map(str, places))
    return [_read_run(name, run_dir, store) for name, (run_dir, store) in zip(shown, folders, strict=True)]


def _read_run(name: str, run_dir: Path, store: Path) -> ComparedRun:
    summary = read_summary(run_dir, store)
    published = published_rows(summary, groups_of(summary))
    return ComparedRun(name, summary.base_cell.stages, published=tuple(published))


def comparison_tables(runs: Sequence[ComparedRun]) -> tuple[list[Table], list[str]]:
    """A table for each benchmark and one of differences; and sentences on what these do not tell.

    Raises:
        UserError: no run has measured a model.
    """
    found = compared_benchmarks(runs)
    if not found:
        raise UserError(f"{', '.join(run.name for run in runs)}: no run has measured a model (evaluate: of a recipe).")
    tables = [_figures(runs, compared) for compared in found]
    differences = [(of, one) for of in found for one in differences_from_first(runs, of)]
    rows = tuple(row for of, one in differences if (row := _row(of, one)))
    if rows:
        columns = (*words("benchmark", "runs"), *numbers("difference", "questions"), *words("interval"))
        tables.append(Table(columns, rows, f"Differences from {runs[0].name}", note=_PAIRED))
    published = [(run.name, *row) for run in runs for row in run.published]
    if published:
        tables.append(published_in_runs(published))
    return tables, [sentence for of, one in differences if (sentence := _sentence(of, one))]


def write_comparison(folders: Sequence[Path], tables: Sequence[Table], sentences: Sequence[str]) -> Path:
    """Write the page of these runs into the first one's folder; no other runs have a page of its name."""
    first, *others = (folder.resolve() for folder in folders)
    key = hashlib.sha256("\0".join(map(str, others)).encode()).hexdigest()[:8]
    page = first / FOLDER / f"{'-'.join(other.name for other in others)[:100]}-{key}.md"
    page.parent.mkdir(exist_ok=True)
    title = escape_markdown(" | ".join(folder.name for folder in (first, *others)))
    parts = [f"# {title}\n", f"{_INTERVALS}\n", *(table.markdown() for table in tables)]
    parts += [f"{escape_markdown(sentence)}\n" for sentence in sentences]
    write_text_atomically(page, "\n".join(parts))
    return page


def _figures(runs: Sequence[ComparedRun], compared: Compared) -> Table:
    """A row for each figure, a column for each run."""
    entries = {entry.run: entry for entry in compared.entries}
    by_run = {name: figures_of(compared.label, entry.artefact) for name, entry in entries.items()}
    names = dict.fromkeys(name for figures in by_run.values() for name in figures)
    rows = []
    for name in names:
        found = [by_run.get(run.name, {}).get(name) for run in runs]
        known = [result for result in found if result is not None]
        direction = " (lower is better)" if known[0].higher_is_better is False else ""
        texts = [ABSENT if result is None else result_text(result) for result in found]
        questions = dict.fromkeys(count(result.questions) for result in known)
        rows.append((f"{name}{direction}", *texts, " / ".join(questions)))
    heads = [entries[run.name].name if run.name in entries else run.name for run in runs]
    return Table((*words("figure"), *numbers(*heads, "questions")), tuple(rows), compared.title)


def _name(compared: Compared, one: RunDifference) -> str:
    return f"{compared.title}: {one.task}" if one.task else compared.title


def _row(compared: Compared, one: RunDifference) -> tuple[str, ...] | None:
    """The row of a difference; None where the two runs are not paired."""
    if one.difference is None:
        return None
    return (
        _name(compared, one),
        f"{one.later} {MINUS} {one.first}",
        difference_text(one.difference, one.unit),
        count(one.difference.questions),
        "holds zero" if one.difference.holds_zero else "excludes zero",
    )


def _sentence(compared: Compared, one: RunDifference) -> str:
    """Says that two runs are not paired, or not told apart; empty where they are."""
    name = _name(compared, one)
    if one.difference is None:
        return f"{name}: {one.later} and {one.first} are not paired: {one.refusal}."
    if one.difference.low is None:
        return f"{name}: {one.later} and {one.first} have one question in common, which tells nothing apart."
    if one.difference.holds_zero:
        return f"{name}: the interval holds zero: these questions do not tell {one.later} and {one.first} apart."
    return ""
