"""Stage `contamination`: the rows that repeat a question of a benchmark, each with the words that they share.

Its table has a row for each row of the data, with a hit for each question that it repeats, the longest common text
first.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import datasets

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.as_text import message_text
from deita_train.data.pairs import SIDES
from deita_train.data.texts import TextColumn
from deita_train.evaluation.contamination import Hit, Index, Passage, Question
from deita_train.evaluation.prompt_frames import without_frame
from deita_train.inference.row_file import write_dataset
from deita_train.stages.context import StageContext, StageResult

_EXAMPLES = 3
_KINDS = {str: "string", int: "int32", float: "float64"}
_HITS = datasets.List({field.name: datasets.Value(_KINDS[field.type]) for field in fields(Hit)})  # type: ignore[index]
_FEATURES = datasets.Features({"id": datasets.Value("string"), "hits": _HITS})
_Found = list[tuple[str, list[Hit]]]


def run(context: StageContext) -> StageResult:
    """Index the questions, look through the rows, and write what each repeats."""
    index = Index(_questions(context))
    rows = datasets.load_from_disk(str(context.parents["data"] / "data"))
    found: _Found = []
    write_dataset(_searched(context, index, rows, found), _FEATURES, context.data_dir)
    return StageResult(len(rows), len(rows), metrics=_metrics(index, len(rows), found))


def _searched(context: StageContext, index: Index, rows: datasets.Dataset, found: _Found) -> Iterator[dict[str, Any]]:
    """The rows of the table; those with hits are added to `found`."""
    ids = TextColumn(arrow_column(rows, "id"))
    for number, (row_id, hits) in enumerate(zip(ids, index.find(_passages(rows)), strict=True), start=1):
        if hits:
            found.append((row_id, hits))
        context.progress.update(number, len(rows), "rows")
        yield {"id": row_id, "hits": list(map(asdict, hits))}


def _questions(context: StageContext) -> dict[str, list[Question]]:
    """The questions of each benchmark by its name."""
    questions: dict[str, list[Question]] = defaultdict(list)
    for role, name in context.identity["benchmarks"].items():
        for benchmark, question in _read_questions(context.parents[role], name):
            questions[benchmark].append(question)
    return questions


def _read_questions(artefact: Path, name: str | None) -> Iterator[tuple[str, Question]]:
    """The questions of a table with `turns`, or of lm_eval's, whose ids begin with the name of a task."""
    table = datasets.load_from_disk(str(artefact / "data"))
    if "turns" in table.column_names:
        assert name is not None, artefact
        for row_id, turns in zip(table["id"], table["turns"], strict=True):
            yield name, Question(row_id, tuple(turns))
        return
    of_tasks: dict[str, dict[str, str]] = defaultdict(dict)
    for row_id, text in zip(table["id"], table["question"], strict=True):
        task, _, number = row_id.rpartition("/")
        of_tasks[task][number] = text or ""
    for task, prompts in of_tasks.items():
        for number, text in zip(prompts, without_frame(list(prompts.values())), strict=True):
            yield task, Question(number, (text,))


def _passages(rows: datasets.Dataset) -> Iterator[list[Passage]]:
    """The texts of each row: of a conversation its messages, of a pair those of the prompt and both answers."""
    columns = ["messages"] if "messages" in rows.column_names else ["prompt", *SIDES]
    for row in rows.select_columns(columns):
        messages = row["messages"] if "messages" in row else [*row["prompt"], *map(_answer, (row[of] for of in SIDES))]
        yield [Passage(number, said["role"], message_text(said)) for number, said in enumerate(messages)]


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _metrics(index: Index, rows: int, found: _Found) -> dict[str, Any]:
    return {
        "rows": rows,
        "found": len(found),
        "benchmarks": {
            name: {
                "questions": len(benchmark.ids),
                "left_out": dict(benchmark.left_out),
                "questions_found": len(_distinct(found, name)),
                "rows": sum(any(hit.benchmark == name for hit in hits) for _, hits in found),
            }
            for name, benchmark in index.benchmarks.items()
        },
        "examples": [example for name in index.benchmarks for example in _examples(found, name)],
    }


def _distinct(found: _Found, benchmark: str) -> dict[str, tuple[str, Hit]]:
    """The longest hit of each question of a benchmark that was found, with the row's id."""
    longest: dict[str, tuple[str, Hit]] = {}
    for row_id, hits in found:
        for hit in hits:
            if hit.benchmark == benchmark and (
                hit.question not in longest or longest[hit.question][1].words < hit.words
            ):
                longest[hit.question] = row_id, hit
    return longest


def _examples(found: _Found, benchmark: str) -> list[Mapping[str, Any]]:
    """A few questions that were found, from the longest common text to the shortest."""
    hits = sorted(_distinct(found, benchmark).values(), key=lambda pair: (-pair[1].words, pair[0], pair[1].question))
    return [{"id": hits[place][0], **asdict(hits[place][1])} for place in _spread(len(hits))]


def _spread(number: int) -> Sequence[int]:
    """Up to `_EXAMPLES` places from 0 to `number` - 1, evenly."""
    count = min(number, _EXAMPLES)
    return [round(place * (number - 1) / max(count - 1, 1)) for place in range(count)]
