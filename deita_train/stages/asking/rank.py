"""Stage `rank`: all versions of a seed scored together by a chat model, as labels for a scorer [paper 2.3, 2.4]."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from deita_train.errors import UserError
from deita_train.evolve.chains import Version
from deita_train.evolve.label_rows import label_rows
from deita_train.evolve.operations import draw, order_of
from deita_train.evolve.prompts import RANK, Prompts
from deita_train.evolve.ranking import (
    FEWEST_VERSIONS,
    Ranking,
    good_versions,
    is_settled,
    judge_ranking,
    ranking_request,
)
from deita_train.evolve.summary import chain_examples, rank_summary
from deita_train.stages.asking.asker import asked_until_usable, spent, stage_asker
from deita_train.stages.asking.evolve import read_chains
from deita_train.stages.context import StageContext, StageResult

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "input": datasets.Value("string"),
        "target": datasets.Value("string"),
        "instruction": datasets.Value("string"),
        "response": datasets.Value("string"),
        "split": datasets.Value("string"),
        "seed_id": datasets.Value("string"),
        "step": datasets.Value("int32"),
        "operation": datasets.Value("string"),
        "mean_score": datasets.Value("float64"),
        "scores": datasets.List(datasets.Value("int32")),
        "places": datasets.List(datasets.Value("int32")),
        "orders": datasets.List(datasets.List(datasets.Value("int32"))),
        "answers": datasets.List(datasets.Value("string")),
        "evolved_from_answer": datasets.Value("string"),
    }
)
"""One row for each labelled version: `input` and `target` as in the published scorer data, `split` "train" or
"heldout", the same for all versions of a seed, and the lineage."""
TRAIN, HELDOUT = "train", "heldout"
_DRAWN = 10**9


def run(context: StageContext) -> StageResult:
    """Ask for every order of every seed's versions, and write a row for each version that was ranked."""
    identity = context.identity
    asker = stage_asker(context)
    chains = read_chains(context.parents["chains"])
    rankings = _rankings(context, asker, chains)
    labelled = {
        seed_id: label_rows(chain, rankings.get(seed_id, []), identity["dimension"])
        for seed_id, chain in chains.items()
    }
    rows = [_row(row, chains[seed_id], identity) for seed_id, labels in labelled.items() for row in labels.rows]
    if not rows:
        raise UserError(f"{context.label}: no seed could be ranked; the log of the stage's answers says why.")
    datasets.Dataset.from_list(rows, features=FEATURES).save_to_disk(str(context.data_dir))
    everything = [ranking for of_seed in rankings.values() for ranking in of_seed]
    drops = Counter(reason for labels in labelled.values() for reason in labels.dropped.values())
    metrics = {
        "dimension": identity["dimension"],
        "splits": dict(Counter(row["split"] for row in rows)),
        **rank_summary(chains, everything),
        "examples": chain_examples(chains, everything),
        **spent(asker),
    }
    return StageResult(len(rows) + drops.total(), len(rows), dict(drops), metrics)


def _rankings(context: StageContext, asker: Any, chains: Mapping[str, Sequence[Version]]) -> dict[str, list[Ranking]]:
    """All answers about the versions of each seed that has something to compare."""
    identity = context.identity
    prompts = Prompts(identity["dimension"], {RANK: identity["prompt"]})
    versions = {seed_id: good_versions(chain) for seed_id, chain in chains.items()}
    asked = [
        (seed_id, round)
        for seed_id, good in versions.items()
        if len(good) >= FEWEST_VERSIONS
        for round in range(identity["orders"])
    ]

    def order(seed_id: str, round: int, attempt: int) -> list[int]:
        return order_of(seed_id, round, len(versions[seed_id]), identity["seed"], attempt)

    attempts = asked_until_usable(
        asker,
        asked,
        lambda item, attempt: ranking_request(
            prompts, versions[item[0]], order(*item, attempt), attempt=attempt, max_tokens=identity["max_tokens"]
        ),
        lambda item, attempt, answer: judge_ranking(
            answer, order(*item, attempt), seed_id=item[0], round=item[1], attempt=attempt
        ),
        is_settled,
        identity["ask_again"],
    )
    found: dict[str, list[Ranking]] = {}
    for (seed_id, _), of_round in zip(asked, attempts, strict=True):
        found.setdefault(seed_id, []).extend(of_round)
    return found


def _row(row: Mapping[str, Any], chain: Sequence[Version], identity: Mapping[str, Any]) -> dict[str, Any]:
    """A labelled row with the texts of its version and its split."""
    version = next(version for version in chain if version.step == row["step"])
    place = int(draw("heldout", identity["seed"], row["seed_id"]), 16) % _DRAWN
    split = HELDOUT if place < identity["heldout_share"] * _DRAWN else TRAIN
    return {**row, "instruction": version.instruction, "response": version.response, "split": split}
