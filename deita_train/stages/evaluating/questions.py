"""Stage `questions`: what models are asked, in one table with unique ids; unusable rows are counted by reason."""

from collections.abc import Iterator, Mapping
from typing import Any

import datasets

from deita_train.data.builtin import builtin_questions
from deita_train.data.intake import RowSource
from deita_train.data.questions import QuestionReport, build_questions, question_lines
from deita_train.data.sources import iter_rows
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.intake.row_sources import open_source
from deita_train.stages.validation import StageToValidate, read_once, report_lines


def run(context: StageContext) -> StageResult:
    """Read, normalise, write."""
    table, report = read_rows(context.identity, context.runtime)
    table.save_to_disk(str(context.data_dir))
    return StageResult(report.rows_in, report.rows_out, report.drops, report.as_dict())


def read_rows(identity: Mapping[str, Any], runtime: Mapping[str, Any]) -> tuple[datasets.Dataset, QuestionReport]:
    """The questions that a stage's identity and runtime describe."""
    source = open_source(RowSource, builtin_questions, identity["source"], runtime["source"])
    references = iter_rows(runtime["references"]) if identity["references"] is not None else None
    return build_questions(source, references)


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many questions there are, and why other rows are not used."""
    _, report = read_once(stage)
    first, *others = question_lines(report)
    yield f"{stage.label}: {report.rows_in:,} rows read, {first}"
    yield from (f"  note: {line}" for line in others)
    yield from report_lines(report)
