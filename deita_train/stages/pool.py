"""Stage `pool`: conversations from anywhere, in one table with unique ids; what cannot be used is counted by reason."""

from collections.abc import Mapping
from typing import Any

from deita_train.data.builtin import builtin_conversations
from deita_train.data.pool import PoolSource, build_pool
from deita_train.stages.context import StageContext, StageResult


def run(context: StageContext) -> StageResult:
    """Read, normalise, merge, write."""
    sources = [
        open_source(identity, location)
        for identity, location in zip(context.config["sources"], context.settings["sources"], strict=True)
    ]
    dataset, report = build_pool(sources)
    dataset.save_to_disk(str(context.data_dir))
    metrics = report.as_dict() | {"mean_turns": report.mean_user_turns}
    return StageResult(report.rows_in, report.rows_out, report.drops, metrics)


def open_source(identity: Mapping[str, Any], location: Mapping[str, Any]) -> PoolSource:
    """One source of a recipe as rows to read."""
    share = identity["instruction_share"]
    shape = {
        "format": identity["format"],
        "roles": identity["roles"],
        "instruction_share": (share[0], share[1]) if share is not None else None,
    }
    if "builtin" in identity:
        rows = builtin_conversations(identity["builtin"], identity["rows"], identity["seed"])
        return PoolSource(identity["builtin"], rows, **shape)
    revision = identity.get("revision")
    return PoolSource.from_dataset(location["dataset"], revision=revision, split=identity["split"], **shape)
