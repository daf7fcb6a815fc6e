"""Stage `preferences`: preference pairs in one table with unique ids; unused rows are counted by reason."""

from collections.abc import Iterator, Mapping
from typing import Any

import datasets

from deita_train.data.builtin import builtin_preferences
from deita_train.data.preferences import PreferenceReport, PreferenceSource, build_preferences
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.intake.row_sources import open_source
from deita_train.stages.validation import StageToValidate, drop_lines


def run(context: StageContext) -> StageResult:
    """Read, normalise, draw, write."""
    dataset, report = read_rows(context.config, context.settings)
    dataset.save_to_disk(str(context.data_dir))
    return StageResult(report.rows_in, report.rows_out, report.drops, report.as_dict())


def read_rows(config: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[datasets.Dataset, PreferenceReport]:
    """The pairs that a stage's configuration and settings describe; a sample of them if one is configured."""
    identity = config["source"]
    source = open_source(PreferenceSource, builtin_preferences, identity, settings["source"])
    return build_preferences(source, identity.get("sample"), identity.get("seed"))


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many pairs are kept, how long their answers are, and why the others are not kept."""
    _, report = read_rows(stage.config, stage.settings)
    yield (
        f"{stage.label}: {report.rows_in:,} rows read, {report.rows_out:,} pairs kept; "
        f"{report.mean_chosen_chars:,.0f} characters per chosen answer, {report.mean_rejected_chars:,.0f} per rejected "
        f"one; chosen is the longer one in {report.chosen_longer_share:.0%}"
    )
    yield from drop_lines(report.drops, report.examples)
