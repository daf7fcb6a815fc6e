"""Stage `evolve`: chains of versions of each seed, every step asked of a chat model [paper 2.3, 2.4]."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets

from deita_train.data.arrow_columns import iter_columns
from deita_train.data.conversations import user_turns
from deita_train.data.lazy_sequence import LazySequence
from deita_train.data.row_blocks import RowBlocks
from deita_train.errors import UserError
from deita_train.evolve.chains import Seed, Version, first_version, next_request, next_version
from deita_train.evolve.operations import Dimension, operation_of
from deita_train.evolve.prompts import Prompts
from deita_train.evolve.summary import evolve_summary
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.client import Asker
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import ASKED_AT_ONCE, groups, spent
from deita_train.stages.asking.chain_file import ChainFile, write_chains
from deita_train.stages.context import StageContext, StageResult


def run(context: StageContext) -> StageResult:
    """Ask for one step of many chains at a time: the next one needs the answers of the one before."""
    identity = context.identity
    seeds = read_seeds(context)
    steps = Steps(identity)
    first = (steps.request([first_version(seed, identity["dimension"])]) for seed in seeds)
    asker = announced_asker(context, first)
    num_versions = write_chains(_chains(identity, asker, steps, seeds), context.data_dir)
    summary = evolve_summary(ChainFile(context.data_dir).chains())
    metrics = {"dimension": identity["dimension"], **summary, **spent(asker)}
    return StageResult(num_versions, num_versions, metrics=metrics)


def _chains(identity: Mapping[str, Any], asker: Asker, steps: "Steps", seeds: "Seeds") -> Iterator[list[list[Version]]]:
    """The whole chains of some seeds at a time."""
    for group in groups(seeds, ASKED_AT_ONCE):
        chains = [[first_version(seed, identity["dimension"])] for seed in group]
        for _ in range(identity["evolutions"]):
            answers = asker.ask([steps.request(chain) for chain in chains])
            for chain, answer in zip(chains, answers, strict=True):
                chain.append(steps.version(chain, answer))
        yield chains


class Steps:
    """What a stage asks next about a chain, and what the answer adds to it."""

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self._identity = identity
        self._prompts = Prompts(identity["dimension"], identity["prompts"])

    def operation(self, chain: Sequence[Version]) -> str:
        """The operation of a chain's next step."""
        return operation_of(chain[0].seed_id, len(chain), self._identity["operations"], self._identity["seed"])

    def request(self, chain: Sequence[Version]) -> ChatRequest:
        """The request of a chain's next step."""
        how = {"temperature": self._identity["temperature"], "max_tokens": self._identity["max_tokens"]}
        return next_request(self._prompts, chain, self.operation(chain), **how)

    def version(self, chain: Sequence[Version], answer: Answer | Failure) -> Version:
        """What the answer adds."""
        return next_version(self._prompts, chain, self.operation(chain), answer, self._identity["max_chars"])


class Seeds(LazySequence[Seed]):
    """The first exchange of every row; for quality only of those that have an answer. Texts are read when wanted."""

    def __init__(self, rows: datasets.Dataset, dimension: Dimension) -> None:
        self._rows = RowBlocks(rows, ["id", "messages"])
        self._places = [
            place
            for place, (messages,) in enumerate(iter_columns(rows, ["messages"]))
            if dimension == "complexity" or user_turns(messages)[0][1] is not None
        ]

    def __len__(self) -> int:
        return len(self._places)

    def item(self, place: int) -> Seed:
        """The seed of a chain."""
        row = self._rows[self._places[place]]
        return Seed(row["id"], *user_turns(row["messages"])[0])


def read_seeds(context: StageContext) -> Seeds:
    """The seeds of the stage.

    Raises:
        UserError: quality is to be evolved, and no seed has an answer.
    """
    rows = datasets.load_from_disk(str(context.parents["seeds"] / "data"))
    seeds = Seeds(rows, context.identity["dimension"])
    if not len(seeds):
        raise UserError(
            f"{context.label}: no seed has an answer to evolve; give seeds with an instruction and an answer."
        )
    return seeds


def first_versions(rows: datasets.Dataset, dimension: Dimension) -> Iterator[Version]:
    """The first version of every chain."""
    return (first_version(seed, dimension) for seed in Seeds(rows, dimension))
