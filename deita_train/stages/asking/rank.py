"""Stage `rank`: all versions of a seed scored together by a chat model, as labels for a scorer [paper 2.3, 2.4]."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.lazy_sequence import LazySequence
from deita_train.data.row_table import as_dataset
from deita_train.data.spilled import SpilledTables
from deita_train.data.texts import GrowingTexts
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
from deita_train.stages.asking.asker import judged_answers, log_line, spent
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
_ROWS_PER_TABLE = 1000


def run(context: StageContext) -> StageResult:
    """Ask for every order of every seed's versions, and write a row for each version that was ranked."""
    identity = context.identity
    chains = ChainFile(context.parents["chains"] / "data")
    rounds, compared = Rounds(identity), _Compared(chains, identity["orders"])
    asker = announced_asker(context, (rounds.request(versions, 0, 0) for versions in compared.versions()))
    rankings = _asked(identity, asker, rounds, compared)
    labels = _Labels(identity)
    for number, chain in enumerate(chains.chains()):
        labels.add(chain, rankings.at(compared.places_of(number)))
    rows = labels.finish()
    if not rows:
        raise UserError(f"{context.label}: no seed could be ranked; the log of the stage's answers says why.")
    as_dataset(rows).save_to_disk(str(context.data_dir))
    everything = rankings.without_words()
    judged = rank_summary(chains, everything)
    for warning in judged["warnings"]:
        log_line(f"warning: {context.label}: {warning['name']}: {warning['text']}")
    splits = pc.value_counts(rows["split"]).to_pylist()
    metrics = {
        "dimension": identity["dimension"],
        "splits": {entry["values"]: entry["counts"] for entry in splits},
        **judged,
        "examples": chain_examples(chains, everything),
        **spent(asker),
    }
    return StageResult(len(rows) + labels.drops.total(), len(rows), dict(labels.drops), metrics)


class _Compared(LazySequence[tuple[list[Version], int]]):
    """The good versions of each seed that has several, with each round of their ranking; read where they are wanted."""

    def __init__(self, chains: ChainFile, orders: int) -> None:
        self._chains = chains
        self._orders = orders
        numbers = [len(good_versions(chain)) for chain in chains.chains()]
        self._seeds = np.flatnonzero(np.array(numbers) >= FEWEST_VERSIONS)
        self._place_of = np.full(len(chains), -1)
        self._place_of[self._seeds] = np.arange(len(self._seeds))

    def __len__(self) -> int:
        return len(self._seeds) * self._orders

    def item(self, place: int) -> tuple[list[Version], int]:
        """The versions and the round at a place."""
        seed, round = divmod(place, self._orders)
        return good_versions(self._chains.chain(int(self._seeds[seed]))), round

    def versions(self) -> Iterator[list[Version]]:
        """The versions alone, once for each seed."""
        return (self[place][0] for place in range(0, len(self), self._orders))

    def places_of(self, seed: int) -> range:
        """The places of all rounds of a seed, by its number among all; none where there is nothing to compare."""
        first = int(self._place_of[seed]) * self._orders
        return range(first, first + self._orders) if first >= 0 else range(0)


class _Rankings:
    """The rankings of each round, in the order of their attempts; the words of their answers lie on disk."""

    def __init__(self, rounds: int) -> None:
        self._of_rounds: list[list[tuple[Ranking, int]]] = [[] for _ in range(rounds)]
        self._words = GrowingTexts()

    def add(self, place: int, ranking: Ranking) -> None:
        """Add one."""
        self._of_rounds[place].append((replace(ranking, raw=None), -1 if ranking.raw is None else len(self._words)))
        if ranking.raw is not None:
            self._words.append(ranking.raw)

    def at(self, places: Iterable[int]) -> list[Ranking]:
        """Those of some rounds."""
        return [
            ranking if words < 0 else replace(ranking, raw=self._words[words])
            for place in places
            for ranking, words in self._of_rounds[place]
        ]

    def without_words(self) -> list[Ranking]:
        """All of them, without the words of their answers."""
        return [ranking for of_round in self._of_rounds for ranking, _ in of_round]


def _asked(identity: Mapping[str, Any], asker: Asker, rounds: "Rounds", compared: _Compared) -> _Rankings:
    """All answers about the versions of each seed that has something to compare."""
    rankings = _Rankings(len(compared))
    for place, ranking in judged_answers(
        asker,
        compared,
        lambda item, attempt: rounds.request(*item, attempt),
        lambda item, attempt, answer: rounds.ranking(*item, attempt, answer),
        is_settled,
        identity["ask_again"],
    ):
        rankings.add(place, ranking)
    return rankings


class _Labels:
    """The rows of labelled versions, in files beyond 64 MiB.

    Attributes:
        drops: good versions without a row, by reason.
    """

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self._identity = identity
        self._tables = SpilledTables(_MOST_IN_MEMORY)
        self._pending: list[dict[str, Any]] = []
        self._labelled: list[str] = []
        self.drops: Counter[str] = Counter()

    def add(self, chain: Sequence[Version], rankings: Sequence[Ranking]) -> None:
        """Add a chain with all its rankings."""
        labels = label_rows(chain, rankings, self._identity["dimension"])
        self._pending += [_with_texts(row, chain) for row in labels.rows]
        self._labelled += [chain[0].seed_id] if labels.rows else []
        self.drops.update(labels.dropped.values())
        if len(self._pending) >= _ROWS_PER_TABLE:
            self._flush()

    def finish(self) -> pa.Table:
        """All rows with their splits."""
        self._flush()
        heldout = pa.array(sorted(heldout_seeds(self._labelled, self._identity)), pa.string())
        place = FEATURES.arrow_schema.get_field_index("split")
        tables = []
        for table in self._tables:
            split = pc.if_else(pc.is_in(table["seed_id"], heldout), HELDOUT, TRAIN)
            tables.append(table.set_column(place, table.schema.field(place), split))
        return pa.concat_tables(tables)

    def _flush(self) -> None:
        self._tables.append(pa.Table.from_pylist(self._pending, schema=FEATURES.arrow_schema))
        self._pending.clear()


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
