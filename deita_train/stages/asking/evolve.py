"""Stage `evolve`: chains of versions of each seed, every step asked of a chat model [paper 2.3, 2.4]."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import datasets

from deita_train.data.conversations import user_turns
from deita_train.errors import UserError
from deita_train.evolve.chains import Seed, Version, first_version, next_request, next_version
from deita_train.evolve.operations import operation_of
from deita_train.evolve.prompts import Prompts
from deita_train.evolve.summary import evolve_summary
from deita_train.stages.asking.asker import spent, stage_asker
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
    asker = stage_asker(context)
    prompts = Prompts(identity["dimension"], identity["prompts"])
    seeds = read_seeds(context)
    chains = [[first_version(seed, identity["dimension"])] for seed in seeds]
    for step in range(1, identity["evolutions"] + 1):
        drawn = [operation_of(seed.id, step, identity["operations"], identity["seed"]) for seed in seeds]
        how = {"temperature": identity["temperature"], "max_tokens": identity["max_tokens"]}
        asked = zip(chains, drawn, strict=True)
        answers = asker.ask([next_request(prompts, chain, operation, **how) for chain, operation in asked])
        for chain, operation, answer in zip(chains, drawn, answers, strict=True):
            chain.append(next_version(prompts, chain, operation, answer, identity["max_chars"]))
    versions = [asdict(version) for chain in chains for version in chain]
    datasets.Dataset.from_list(versions, features=FEATURES).save_to_disk(str(context.data_dir))
    summary = evolve_summary({chain[0].seed_id: chain for chain in chains})
    metrics = {"dimension": identity["dimension"], **summary, **spent(asker)}
    return StageResult(len(versions), len(versions), metrics=metrics)


def read_seeds(context: StageContext) -> list[Seed]:
    """The first exchange of every row of the seeds; for quality only of those that have an answer.

    Raises:
        UserError: quality is to be evolved, and no seed has an answer.
    """
    rows = datasets.load_from_disk(str(context.parents["seeds"] / "data"))
    seeds = [Seed(row["id"], *user_turns(row["messages"])[0]) for row in rows]
    if context.identity["dimension"] == "complexity":
        return seeds
    answered = [seed for seed in seeds if seed.response is not None]
    if not answered:
        raise UserError(
            f"{context.label}: no seed has an answer to evolve; give seeds with an instruction and an answer."
        )
    return answered


def read_chains(artefact: Path) -> dict[str, list[Version]]:
    """All versions of each seed, by its id, from a published table."""
    chains: dict[str, list[Version]] = defaultdict(list)
    for row in datasets.load_from_disk(str(artefact / "data")):
        chains[row["seed_id"]].append(Version(**row))
    return dict(chains)
