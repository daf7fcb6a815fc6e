"""The labelled rows that a scorer is trained on and tested with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from deita_train.data.builtin import builtin_scorer_rows
from deita_train.data.sources import iter_rows
from deita_train.scoring.training_pairs import LabelColumn, ScorerExample, read_examples
from deita_train.stages.intake.row_sources import read_options
from deita_train.stages.validation import StageToValidate


def read_scorer_data(
    identity: Mapping[str, Any], runtime: Mapping[str, Any], which: str, labels: Path | None = None
) -> list[ScorerExample]:
    """The labelled rows of `data` or `heldout` that a stage's identity and runtime describe.

    `labels` is the artefact of `rank`, for the labels that `evolve:` makes.
    """
    source_identity: Mapping[str, Any] = identity[which]
    if "evolve" in source_identity:
        assert labels is not None, "labels of evolve are read from their artefact"
        return ranked_examples(labels, source_identity["evolve"])
    if "builtin" in source_identity:
        rows = builtin_scorer_rows(identity["dimension"], source_identity["rows"], source_identity["seed"])
        return read_examples(rows, identity["dimension"], None)
    raw = iter_rows(runtime[which]["dataset"], **read_options(source_identity))
    return read_examples(raw, identity["dimension"], _label_column(source_identity))


def ranked_examples(labels: Path, split: str) -> list[ScorerExample]:
    """The rows of one split, "train" or "heldout", of a table of `rank`."""
    rows = datasets.load_from_disk(str(labels / "data"))
    return [
        ScorerExample(row["id"], row["instruction"], row["response"], int(row["target"]))
        for row in rows
        if row["split"] == split
    ]


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many labelled rows there are to train on and to measure with."""
    for which in ("data", "heldout"):
        if stage.identity[which] is not None and "evolve" not in stage.identity[which]:
            examples = read_scorer_data(stage.identity, stage.runtime, which)
            yield f"{stage.label} {which}: {len(examples):,} labelled rows"


def _label_column(identity: Mapping[str, Any]) -> LabelColumn | None:
    if identity["label"] is None:
        return None
    share = identity["instruction_share"]
    return LabelColumn(
        name=identity["label"],
        rank_within_instruction=identity["rank_within_instruction"],
        format=identity["format"],
        roles=identity["roles"],
        instruction_share=(share[0], share[1]) if share is not None else None,
    )
