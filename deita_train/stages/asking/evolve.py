"""Stage `evolve`: chains of versions of each seed, every step asked of a chat model [paper 2.3, 2.4]."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets

from deita_train.data.arrow_columns import iter_columns
from deita_train.data.conversations import user_turns
from deita_train.data.lazy_sequence import LazySequence, Mapped
from deita_train.data.row_blocks import RowBlocks
from deita_train.errors import UserError
from deita_train.evolve.chains import Seed, Version, first_version, next_request, next_version
from deita_train.evolve.operations import Dimension, operation_of
from deita_train.evolve.prompts import Prompts
from deita_train.evolve.summary import evolve_summary
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import spent
from deita_train.stages.asking.chain_file import ChainFile, GrowingVersions, write_chains
from deita_train.stages.context import StageContext, StageResult


def run(context: StageContext) -> StageResult:
    """Ask for one step of all chains at a time: the next one needs the answers of the one before."""
    identity = context.identity
    steps, chains = Steps(identity), GrowingChains(read_seeds(context), identity["dimension"])
    requests = Mapped(steps.request, chains)
    asker = announced_asker(context, requests)
    for _ in range(identity["evolutions"]):
        chains.grow(map(steps.version, chains, asker.each(requests)))
    num_versions = write_chains(chains, context.data_dir)
    summary = evolve_summary(ChainFile(context.data_dir).chains())
    metrics = {"dimension": identity["dimension"], **summary, **spent(asker)}
    return StageResult(num_versions, num_versions, metrics=metrics)


class GrowingChains(LazySequence[list[Version]]):
    """The chains of all seeds, as far as they are; their texts are read where they are wanted."""

    def __init__(self, seeds: Sequence[Seed], dimension: Dimension) -> None:
        self._seeds = seeds
        self._dimension = dimension
        self._steps: list[GrowingVersions] = []

    def __len__(self) -> int:
        return len(self._seeds)

    def item(self, place: int) -> list[Version]:
        """The chain of a seed."""
        return [first_version(self._seeds[place], self._dimension), *(step[place] for step in self._steps)]

    def grow(self, versions: Iterable[Version]) -> None:
        """Add a version to each chain; what makes them still sees the chains without it."""
        step = GrowingVersions()
        for version in versions:
            step.append(version)
        assert len(step) == len(self), f"{len(step)} versions for {len(self)} chains"
        self._steps.append(step)


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
        self._places = array("q")
        for place, (messages,) in enumerate(iter_columns(rows, ["messages"])):
            if dimension == "complexity" or user_turns(messages)[0][1] is not None:
                self._places.append(place)

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
