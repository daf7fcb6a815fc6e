"""The labelled rows that a scorer is trained on and tested with."""

from collections.abc import Iterator, Mapping
from typing import Any

from deita_train.data.builtin import builtin_scorer_rows
from deita_train.data.sources import iter_rows
from deita_train.scoring.training_pairs import LabelColumn, ScorerExample, read_examples
from deita_train.stages.validation import StageToValidate


def read_scorer_data(config: Mapping[str, Any], settings: Mapping[str, Any], which: str) -> list[ScorerExample]:
    """The labelled rows of `data` or `heldout` that a stage's configuration and settings describe."""
    identity: Mapping[str, Any] = config[which]
    if "builtin" in identity:
        rows = builtin_scorer_rows(config["dimension"], identity["rows"], identity["seed"])
        return read_examples(rows, config["dimension"], None)
    source = settings[which]["dataset"]
    raw = iter_rows(source, revision=identity.get("revision"), split=identity["split"])
    return read_examples(raw, config["dimension"], _label_column(identity))


def validate(stage: StageToValidate) -> Iterator[str]:
    """How many labelled rows there are to train on and to measure with."""
    for which in ("data", "heldout"):
        if stage.config[which] is not None:
            examples = read_scorer_data(stage.config, stage.settings, which)
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
