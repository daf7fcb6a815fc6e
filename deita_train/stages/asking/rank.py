"""Stage `rank`: all versions of a seed scored together by a chat model, as labels for a scorer [paper 2.3, 2.4]."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.row_table import as_dataset
from deita_train.data.spilled import SpilledTables
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
from deita_train.stages.asking.asker import ASKED_AT_ONCE, attempts_of, groups, judged_answers, log_line, spent
from deita_train.stages.asking.chain_file import ChainFile
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

_MOST_IN_MEMORY = 1 << 26


def run(context: StageContext) -> StageResult:
    """Ask for every order of every seed's versions, and write a row for each version that was ranked."""
    identity = context.identity
    chains = ChainFile(context.parents["chains"] / "data")
    rounds = Rounds(identity)
    compared = filter(_is_compared, map(good_versions, chains.chains()))
    asker = announced_asker(context, (rounds.request(versions, 0, 0) for versions in compared))
    labels = _Labels(identity)
    for group in groups(chains.chains(), ASKED_AT_ONCE):
        labels.add(group, _rankings(identity, asker, rounds, group))
    rows = labels.finish()
    if not rows:
        raise UserError(f"{context.label}: no seed could be ranked; the log of the stage's answers says why.")
    as_dataset(rows).save_to_disk(str(context.data_dir))
    judged = rank_summary(chains, labels.rankings)
    for warning in judged["warnings"]:
        log_line(f"warning: {context.label}: {warning['name']}: {warning['text']}")
    splits = pc.value_counts(rows["split"]).to_pylist()
    metrics = {
        "dimension": identity["dimension"],
        "splits": {entry["values"]: entry["counts"] for entry in splits},
        **judged,
        "examples": chain_examples(chains, labels.rankings),
        **spent(asker),
    }
    return StageResult(len(rows) + labels.drops.total(), len(rows), dict(labels.drops), metrics)


def _is_compared(versions: Sequence[Version]) -> bool:
    return len(versions) >= FEWEST_VERSIONS


class _Labels:
    """The rows of labelled versions, in files beyond 64 MiB, and what is counted of the rankings.

    Attributes:
        rankings: all of them, without the words of their answers.
        drops: good versions without a row, by reason.
    """

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self._identity = identity
        self._tables = SpilledTables(_MOST_IN_MEMORY)
        self._labelled: list[str] = []
        self.rankings: list[Ranking] = []
        self.drops: Counter[str] = Counter()

    def add(self, group: Sequence[Sequence[Version]], rankings: Mapping[str, list[Ranking]]) -> None:
        """Add some chains with their rankings, by the ids of their seeds."""
        rows = []
        for chain in group:
            seed_id = chain[0].seed_id
            found = rankings.get(seed_id, [])
            labels = label_rows(chain, found, self._identity["dimension"])
            rows += [_with_texts(row, chain) for row in labels.rows]
            self._labelled += [seed_id] if labels.rows else []
            self.drops.update(labels.dropped.values())
            self.rankings += [replace(ranking, raw=None) for ranking in found]
        self._tables.append(pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema))

    def finish(self) -> pa.Table:
        """All rows with their splits."""
        heldout = pa.array(sorted(heldout_seeds(self._labelled, self._identity)), pa.string())
        place = FEATURES.arrow_schema.get_field_index("split")
        tables = []
        for table in self._tables:
            split = pc.if_else(pc.is_in(table["seed_id"], heldout), HELDOUT, TRAIN)
            tables.append(table.set_column(place, table.schema.field(place), split))
        return pa.concat_tables(tables)


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
    identity: Mapping[str, Any], asker: Asker, rounds: Rounds, chains: Sequence[Sequence[Version]]
) -> dict[str, list[Ranking]]:
    """All answers about the versions of each seed that has something to compare."""
    compared = filter(_is_compared, map(good_versions, chains))
    asked = [(versions, round) for versions in compared for round in range(identity["orders"])]
    found: dict[str, list[Ranking]] = {}
    judged = judged_answers(
        asker,
        asked,
        lambda item, attempt: rounds.request(*item, attempt),
        lambda item, attempt, answer: rounds.ranking(*item, attempt, answer),
        is_settled,
        identity["ask_again"],
    )
    for (versions, _), of_round in zip(asked, attempts_of(len(asked), judged), strict=True):
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


def _with_texts(row: Mapping[str, Any], chain: Sequence[Version]) -> dict[str, Any]:
    """A labelled row with the texts of its version."""
    version = next(version for version in chain if version.step == row["step"])
    return {**row, "instruction": version.instruction, "response": version.response}
