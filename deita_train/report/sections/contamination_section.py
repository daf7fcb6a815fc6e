"""The section on data that repeats the questions of benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deita_train.number_text import count, decimals, plural, share
from deita_train.report.results.groups import Group
from deita_train.report.results.summary import Artefact, RunSummary
from deita_train.report.sections.section import Section
from deita_train.report.texts import shortened
from deita_train.table import CODE, PROSE, Column, Table, numbers, words

TITLE = "Contamination"
# Label of the stage -> the data that it looked through.
DATA = {
    "decontaminate": "pool, removed before the selection",
    "contamination.pool": "pool",
    "contamination.selected": "selected rows",
    "contamination.sft_data": "rows of SFT",
    "contamination.dpo_data": "pairs of DPO",
    "contamination.heldout": "held-out rows",
}
_SPAN_CHARS = 300
_MOST_NAMED = 12
_LEFT_OUT = {
    "too_short": "are too short",
    "tells_nothing": "are mostly numbers or single letters",
    "shared_by_many": "consist of text that more than ten questions share",
}
_TEXT = (
    "Rows that repeat a benchmark's question: 13 successive words of it, whatever the case, spaces and punctuation, or "
    "the whole of a shorter question. A model that was trained on such rows may know the question, and its figure says "
    "less about other questions. The search finds copies and long quotations, in any part of a row. It does not find "
    "questions in other words or in another language, nor a short question of which a word was changed; no hit is "
    "therefore no proof."
)
_COUNTS = "Looked for are the questions that are long enough; found are those that at least one row repeats."
_EXAMPLES = (
    "For each benchmark, questions from the longest common text to the shortest; the text is as it stands in the row. "
    "The share is that of the question's words. Judge the shortest ones yourself: a turn of phrase can be common to "
    "both by chance. The artefacts list all."
)


def contamination_section(summary: RunSummary, _: Sequence[Group]) -> Section | None:
    """Counts by data and by benchmark, and examples."""
    found = {label: item for label, item in summary.base_cell.stages.items() if label in DATA}
    # What is removed from the pool may be all that is looked for in it, and then both are one artefact.
    first = {item.id: label for label, item in reversed(found.items())}
    stages = {label: item for label, item in found.items() if first[item.id] == label}
    if not stages:
        return None
    tables = (_count_table(stages), *_example_tables(stages))
    return Section(TITLE, _TEXT, tables, notes=tuple(_notes(stages)))


def _count_table(stages: Mapping[str, Artefact]) -> Table:
    rows = tuple(
        (
            DATA[label],
            name,
            count(of["questions"] - sum(of["left_out"].values())),
            count(of["questions_found"]),
            count(item.metric("rows")),
            count(of["rows"]),
            share(of["rows"] / item.metric("rows")),
        )
        for label, item in stages.items()
        for name, of in _shown(item.metric("benchmarks")).items()
    )
    titles = ("questions looked for", "questions found", "rows", "rows that repeat one", "share of rows")
    return Table((*words("data", "benchmark"), *numbers(*titles)), rows, note=_COUNTS)


def _shown(benchmarks: Mapping[str, Any]) -> Mapping[str, Any]:
    """The benchmarks by name; of many, such as the tasks of MMLU, those of which nothing was found as one."""
    if len(benchmarks) <= _MOST_NAMED:
        return benchmarks
    clean = [of for of in benchmarks.values() if not of["rows"]]
    together = {
        "questions": sum(of["questions"] for of in clean),
        "left_out": {"all": sum(sum(of["left_out"].values()) for of in clean)},
        "questions_found": 0,
        "rows": 0,
    }
    named = {name: of for name, of in benchmarks.items() if of["rows"]}
    return {**named, f"{plural(len(clean), 'task')} without a hit": together} if clean else named


def _example_tables(stages: Mapping[str, Artefact]) -> Iterator[Table]:
    rows = tuple(
        (
            DATA[label],
            f"{example['benchmark']}/{example['question']}",
            shortened(example["span"], _SPAN_CHARS),
            count(example["words"]),
            share(example["share"]),
            example["id"],
        )
        for label, item in stages.items()
        for example in item.metric("examples")[:_MOST_NAMED]
    )
    if rows:
        columns = (
            *words("data"),
            Column("question", CODE),
            Column("common text", PROSE),
            *numbers("common words", "share of the question"),
            Column("row", CODE),
        )
        yield Table(columns, rows, title="Examples", note=_EXAMPLES)


def _notes(stages: Mapping[str, Artefact]) -> Iterator[str]:
    """Which questions are not looked for, by benchmark; of many, the column of what is looked for has to do."""
    benchmarks = {name: of for item in stages.values() for name, of in item.metric("benchmarks").items()}
    for name, of in benchmarks.items() if len(benchmarks) <= _MOST_NAMED else ():
        reasons = ", ".join(f"{count(number)} {_LEFT_OUT[reason]}" for reason, number in of["left_out"].items())
        if reasons:
            lost = sum(of["left_out"].values())
            yield (
                f"{name}: {count(lost)} of {plural(of['questions'], 'question')} "
                f"({decimals(100 * lost / of['questions'], 1)}%) are not looked for: {reasons}."
            )
