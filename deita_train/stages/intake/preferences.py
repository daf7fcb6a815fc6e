"""Stage `preferences`: preference pairs in one table with unique ids; unused rows are counted by reason."""

from collections.abc import Mapping
from typing import Any

import datasets

from deita_train.data.builtin import builtin_preferences
from deita_train.data.preferences import PreferenceReport, PreferenceSource, build_preferences
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.intake.row_sources import open_source


def run(context: StageContext) -> StageResult:
    """Read, normalise, draw, write."""
    dataset, report = read_preferences(context.config, context.settings)
    dataset.save_to_disk(str(context.data_dir))
    return StageResult(report.rows_in, report.rows_out, report.drops, report.as_dict())


def read_preferences(
    config: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[datasets.Dataset, PreferenceReport]:
    """The pairs that a stage's configuration and settings describe; a sample of them if one is configured."""
    identity = config["source"]
    source = open_source(PreferenceSource, builtin_preferences, identity, settings["source"])
    return build_preferences(source, identity.get("sample"), identity.get("seed"))
