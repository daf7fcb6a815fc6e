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
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.client import Asker
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import asked_until_usable, log_line, spent
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


def run(context: StageContext) -> StageResult:
    """Ask for every order of every seed's versions, and write a row for each version that was ranked."""
    identity = context.identity
    chains = read_chains(context.parents["chains"])
    compared = [good for good in map(good_versions, chains.values()) if len(good) >= FEWEST_VERSIONS]
    rounds = Rounds(identity)
    asker = announced_asker(context, [rounds.request(versions, 0, 0) for versions in compared])
    rankings = _rankings(identity, asker, rounds, compared)
    labelled = {
        seed_id: label_rows(chain, rankings.get(seed_id, []), identity["dimension"])
        for seed_id, chain in chains.items()
    }
    heldout = heldout_seeds([seed_id for seed_id, labels in labelled.items() if labels.rows], identity)
    rows = [
        _row(row, chains[seed_id], HELDOUT if seed_id in heldout else TRAIN)
        for seed_id, labels in labelled.items()
        for row in labels.rows
    ]
    if not rows:
        raise UserError(f"{context.label}: no seed could be ranked; the log of the stage's answers says why.")
    datasets.Dataset.from_list(rows, features=FEATURES).save_to_disk(str(context.data_dir))
    everything = [ranking for of_seed in rankings.values() for ranking in of_seed]
    drops = Counter(reason for labels in labelled.values() for reason in labels.dropped.values())
    judged = rank_summary(chains, everything)
    for warning in judged["warnings"]:
        log_line(f"warning: {context.label}: {warning['name']}: {warning['text']}")
    metrics = {
        "dimension": identity["dimension"],
        "splits": dict(Counter(row["split"] for row in rows)),
        **judged,
        "examples": chain_examples(chains, everything),
        **spent(asker),
    }
    return StageResult(len(rows) + drops.total(), len(rows), dict(drops), metrics)


class Rounds:
    """What a stage asks about the good versions of one seed, in each round and attempt, and what the answer says."""

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self._identity = identity
        self._prompts = Prompts(identity["dimension"], {RANK: identity["prompt"]})

    def request(self, versions: Sequence[Version], round: int, attempt: int) -> ChatRequest:
        """The request of one round."""
        order = self._order(versions, round, attempt)
        return ranking_request(self._prompts, versions, order, attempt=attempt, max_tokens=self._identity["max_tokens"])

    def ranking(self, versions: Sequence[Version], round: int, attempt: int, answer: Answer | Failure) -> Ranking:
        """What the answer says."""
        order = self._order(versions, round, attempt)
        return judge_ranking(answer, order, seed_id=versions[0].seed_id, round=round, attempt=attempt)

    def _order(self, versions: Sequence[Version], round: int, attempt: int) -> list[int]:
        return order_of(versions[0].seed_id, round, len(versions), self._identity["seed"], attempt)


def _rankings(
    identity: Mapping[str, Any], asker: Asker, rounds: Rounds, compared: Sequence[Sequence[Version]]
) -> dict[str, list[Ranking]]:
    """All answers about the versions of each seed that has something to compare."""
    asked = [(versions, round) for versions in compared for round in range(identity["orders"])]
    attempts = asked_until_usable(
        asker,
        asked,
        lambda item, attempt: rounds.request(*item, attempt),
        lambda item, attempt, answer: rounds.ranking(*item, attempt, answer),
        is_settled,
        identity["ask_again"],
    )
    found: dict[str, list[Ranking]] = {}
    for (versions, _), of_round in zip(asked, attempts, strict=True):
        found.setdefault(versions[0].seed_id, []).extend(of_round)
    return found


def heldout_seeds(seed_ids: Sequence[str], identity: Mapping[str, Any]) -> set[str]:
    """The seeds whose rows are kept from training: the stated share, drawn by their ids, and one of several at least.

    A scorer that has nothing to be measured with would fail once everything is asked and paid for.
    """
    share = identity["heldout_share"]
    least = 1 if share > 0 and len(seed_ids) > 1 else 0
    number = max(least, min(round(share * len(seed_ids)), len(seed_ids) - 1))
    return set(sorted(seed_ids, key=lambda seed_id: draw("heldout", identity["seed"], seed_id))[:number])


def _row(row: Mapping[str, Any], chain: Sequence[Version], split: str) -> dict[str, Any]:
    """A labelled row with the texts of its version and its split."""
    version = next(version for version in chain if version.step == row["step"])
    return {**row, "instruction": version.instruction, "response": version.response, "split": split}
