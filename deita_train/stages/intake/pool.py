"""Stage `pool`: conversations from all sources in one table with unique ids; unusable rows are counted by reason."""

from collections.abc import Iterator, Mapping
from typing import Any

import datasets

from deita_train.data.builtin import builtin_conversations
from deita_train.data.pool import PoolReport, PoolSource, build_pool
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.intake.row_sources import open_source
from deita_train.stages.validation import StageToValidate, read_once, report_lines


def run(context: StageContext) -> StageResult:
    """Read, normalise, merge, write."""
    dataset, report = read_rows(context.identity, context.runtime)
    dataset.save_to_disk(str(context.data_dir))
    metrics = report.as_dict() | {"mean_turns": report.mean_user_turns}
    return StageResult(report.rows_in, report.rows_out, report.drops, metrics)


def read_rows(identity: Mapping[str, Any], runtime: Mapping[str, Any]) -> tuple[datasets.Dataset, PoolReport]:
    """The pool that a stage's identity and runtime describe."""
    sources = [
        open_source(PoolSource, builtin_conversations, source_identity, location)
        for source_identity, location in zip(identity["sources"], runtime["sources"], strict=True)
    ]
    return build_pool(sources)


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many rows are read and usable, and why the others are not, and what else the rows hold."""
    _, report = read_once(stage)
    yield f"{stage.label}: {report.rows_in:,} rows read, {report.rows_out:,} usable"
    yield from report_lines(report)
