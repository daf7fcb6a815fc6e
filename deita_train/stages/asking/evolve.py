"""Stage `evolve`: chains of versions of each seed, every step asked of a chat model [paper 2.3, 2.4]."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

from deita_train.data.conversations import user_turns
from deita_train.errors import UserError
from deita_train.evolve.chains import Seed, Version, first_version, next_request, next_version
from deita_train.evolve.operations import Dimension, operation_of
from deita_train.evolve.prompts import Prompts
from deita_train.evolve.summary import evolve_summary
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.requests import ChatRequest
from deita_train.stages.asking.announcing import announced_asker
from deita_train.stages.asking.asker import spent
from deita_train.stages.context import StageContext, StageResult

FEATURES = datasets.Features(
    {
        "seed_id": datasets.Value("string"),
        "step": datasets.Value("int32"),
        "operation": datasets.Value("string"),
        "instruction": datasets.Value("string"),
        "response": datasets.Value("string"),
        "status": datasets.Value("string"),
        "raw": datasets.Value("string"),
    }
)
"""One row for each version; `step` 0 is the seed itself, `status` "ok" or why the version was dropped."""


def run(context: StageContext) -> StageResult:
    """Ask for one step of all chains at a time: the next one needs the answers of the one before."""
    identity = context.identity
    seeds = read_seeds(context)
    steps = Steps(identity)
    chains = [[first_version(seed, identity["dimension"])] for seed in seeds]
    asker = announced_asker(context, [steps.request(chain) for chain in chains])
    for _ in range(identity["evolutions"]):
        answers = asker.ask([steps.request(chain) for chain in chains])
        for chain, answer in zip(chains, answers, strict=True):
            chain.append(steps.version(chain, answer))
    versions = [asdict(version) for chain in chains for version in chain]
    datasets.Dataset.from_list(versions, features=FEATURES).save_to_disk(str(context.data_dir))
    summary = evolve_summary({chain[0].seed_id: chain for chain in chains})
    metrics = {"dimension": identity["dimension"], **summary, **spent(asker)}
    return StageResult(len(versions), len(versions), metrics=metrics)


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


def read_seeds(context: StageContext) -> list[Seed]:
    """The first exchange of every row of the seeds; for quality only of those that have an answer.

    Raises:
        UserError: quality is to be evolved, and no seed has an answer.
    """
    rows = datasets.load_from_disk(str(context.parents["seeds"] / "data"))
    seeds = seeds_of(rows, context.identity["dimension"])
    if not seeds:
        raise UserError(
            f"{context.label}: no seed has an answer to evolve; give seeds with an instruction and an answer."
        )
    return seeds


def seeds_of(rows: Iterable[Mapping[str, Any]], dimension: Dimension) -> list[Seed]:
    """The first exchange of every row; for quality only of those that have an answer."""
    seeds = [Seed(row["id"], *user_turns(row["messages"])[0]) for row in rows]
    return [seed for seed in seeds if dimension == "complexity" or seed.response is not None]


def read_chains(artefact: Path) -> dict[str, list[Version]]:
    """All versions of each seed, by its id, from a published table."""
    chains: dict[str, list[Version]] = defaultdict(list)
    for row in datasets.load_from_disk(str(artefact / "data")):
        chains[row["seed_id"]].append(Version(**row))
    return dict(chains)
