"""Stage `preferences`: preference pairs in one table with unique ids; unused rows are counted by reason."""

from collections.abc import Iterator, Mapping
from typing import Any

import datasets

from deita_train.data.builtin import builtin_preferences
from deita_train.data.preferences import PreferenceReport, PreferenceSource, build_preferences
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.intake.row_sources import open_source
from deita_train.stages.validation import StageToValidate, read_once, report_lines


def run(context: StageContext) -> StageResult:
    """Read, normalise, draw, write."""
    dataset, report = read_rows(context.identity, context.runtime)
    dataset.save_to_disk(str(context.data_dir))
    return StageResult(report.rows_in, report.rows_out, report.drops, report.as_dict())


def read_rows(identity: Mapping[str, Any], runtime: Mapping[str, Any]) -> tuple[datasets.Dataset, PreferenceReport]:
    """The pairs that a stage's identity and runtime describe; a sample of them if one is configured."""
    source_identity = identity["source"]
    source = open_source(PreferenceSource, builtin_preferences, source_identity, runtime["source"])
    return build_preferences(source, source_identity.get("sample"), source_identity.get("seed"))


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many pairs are kept, how long their answers are, and why the others are not kept."""
    _, report = read_once(stage)
    yield (
        f"{stage.label}: {report.rows_in:,} rows read, {report.rows_out:,} pairs kept; "
        f"{report.mean_chosen_chars:,.0f} characters per chosen answer, {report.mean_rejected_chars:,.0f} per rejected "
        f"one; chosen is the longer one in {report.chosen_longer_share:.0%}"
    )
    yield from report_lines(report)
