"""Rankings become rows for a scorer, in the format of the published scorer data, each with where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deita_train.data.source_row import SourceRow
from deita_train.evolve.chains import Version
from deita_train.evolve.operations import Dimension
from deita_train.evolve.ranking import (
    FEWEST_VERSIONS,
    NOTHING_TO_COMPARE,
    Ranking,
    good_versions,
    last_attempts,
    nearest_level,
)
from deita_train.scoring.prompts import render
from deita_train.scoring.training_pairs import read_examples

AMBIGUOUS = "ambiguous_prompt"


@dataclass(frozen=True)
class SeedLabels:
    """What one seed gives to train on.

    Attributes:
        rows: `input` and `target` as in the published data, and the lineage; one for each labelled version.
        dropped: the reason for each good version without a row, by its step.
    """

    rows: list[dict[str, Any]]
    dropped: Mapping[int, str]


def label_rows(chain: Sequence[Version], rankings: Sequence[Ranking], dimension: Dimension) -> SeedLabels:
    """The rows of one seed.

    The target is the mean score over the usable rankings, to the nearest whole number. A seed without any keeps none of
    its versions.

    Args:
        chain: all versions of the seed.
        rankings: all answers about its good versions, in any number of rounds and attempts.
        dimension: of the chain.
    """
    versions = good_versions(chain)
    last = last_attempts(rankings)
    usable = [ranking for ranking in last if ranking.scores is not None]
    if not usable:
        reason = last[-1].status if last else NOTHING_TO_COMPARE
        assert last or len(versions) < FEWEST_VERSIONS, f"the versions of {chain[0].seed_id} were not ranked"
        return SeedLabels([], {version.step: reason for version in versions})
    rows, dropped = [], {}
    for position, version in enumerate(versions):
        row = _row(version, position, usable, dimension)
        if _reads_back(row, version, dimension):
            rows.append(row)
        else:
            dropped[version.step] = AMBIGUOUS
    return SeedLabels(rows, dropped)


def _row(version: Version, position: int, usable: Sequence[Ranking], dimension: Dimension) -> dict[str, Any]:
    scores = [ranking.scores[position] for ranking in usable if ranking.scores is not None]
    return {
        "id": f"{version.seed_id}/{version.step}",
        "input": render(dimension, version.instruction, version.response),
        "target": str(nearest_level(scores)),
        "seed_id": version.seed_id,
        "step": version.step,
        "operation": version.operation,
        "mean_score": sum(scores) / len(scores),
        "scores": scores,
        "places": [ranking.order.index(position) + 1 for ranking in usable],
        "orders": [list(ranking.order) for ranking in usable],
        "answers": [ranking.raw for ranking in usable],
        "evolved_from_answer": version.raw,
    }


def _reads_back(row: Mapping[str, Any], version: Version, dimension: Dimension) -> bool:
    """Whether the texts can be taken out of the prompt again; not if an instruction spells the prompt's own marks."""
    (example,) = read_examples([SourceRow(0, row["id"], dict(row))], dimension, None)
    return (example.instruction, example.response) == (version.instruction, version.response)
