"""`deita-train inspect` of a stage that evolves or ranks: what a chat model is asked about a seed, and its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deita_train.commands.inspection import nearest_ids
from deita_train.errors import UserError
from deita_train.plan.node import Node
from deita_train.plan.plan import Plan
from deita_train.stages.kinds import stage_module

if TYPE_CHECKING:
    from deita_train.evolve.chains import Seed, Version
    from deita_train.stages.inspection.seed_view import Exchange, SeedView


@dataclass(frozen=True)
class SeedInspection:
    """The questions about one seed."""

    facts: tuple[tuple[str, str], ...]
    exchanges: tuple["Exchange", ...]


def inspect_seed(plan: Plan, node: Node, seed_id: str | None) -> SeedInspection:
    """The chain of one seed for a stage `evolve`, its rankings for a stage `rank`; by default of the first seed.

    Raises:
        UserError: there is no such seed.
    """
    from deita_train.llm.answers import AnswerStore
    from deita_train.stages.inspection.seed_view import SeedView, is_compared

    evolve = node if node.kind == "evolve" else node.parents["chains"]
    seeds, described = _seeds(plan, evolve)
    seed = _find(seeds, node, described, seed_id)
    view = SeedView(AnswerStore(Path(node.runtime["answers"])))
    chain, found = _chain(plan, evolve, seed, view)
    endpoint = node.runtime["endpoint"]
    facts = [
        ("stage", f"{node.label}: {_ASKED[node.kind]}"),
        ("seed", f"{seed.id}{'' if seed_id else ' (the first)'}"),
        ("seeds", described),
        ("asked", f"llm.{endpoint['name']}, {endpoint.get('model') or node.runtime.get('model')}"),
        ("chain", f"{len(chain) - 1} of {evolve.identity['evolutions']} steps made, {found}"),
    ]
    if node is evolve:
        return SeedInspection(tuple(facts), tuple(view.steps(node.identity, chain)))
    facts.append(("versions", _versions(chain)))
    if len(chain) > evolve.identity["evolutions"] and not is_compared(chain):
        facts.append(("note", "only the seed itself is good, so there is nothing to compare it with"))
        return SeedInspection(tuple(facts), ())
    if len(chain) <= evolve.identity["evolutions"]:
        facts.append(("note", f"{evolve.label} has not made all steps yet; then the prompt lists all good versions"))
    return SeedInspection(tuple(facts), tuple(view.rankings(node.identity, chain)))


_ASKED = {
    "evolve": "each step evolves the last good version by one operation",
    "rank": "all good versions of a seed are scored in one prompt, in a drawn order",
}


def _seeds(plan: Plan, evolve: Node) -> tuple[Sequence["Seed"], str]:
    """The seeds, and where they come from in words."""
    from deita_train.stages.asking.evolve import Seeds

    node = evolve.parents["seeds"]
    if plan.store.has(node.id):
        import datasets

        table, origin = datasets.load_from_disk(str(plan.store.path(node.id) / "data")), node.id
    else:
        table, _ = stage_module(node.kind).read_rows(node.identity, node.runtime)
        origin = "read from their source"
    seeds = Seeds(table, evolve.identity["dimension"])
    return seeds, f"{len(seeds):,} seeds, {origin}"


def _find(seeds: Sequence["Seed"], node: Node, described: str, seed_id: str | None) -> "Seed":
    ids = [seed.id for seed in seeds]
    if not ids:
        raise UserError(f"{node.label}: there is no seed with something to evolve ({described}).")
    if seed_id is not None and seed_id not in ids:
        raise UserError(f"--row {seed_id}: {node.label} has no such seed ({described}); {nearest_ids(seed_id, ids)}.")
    return seeds[0 if seed_id is None else ids.index(seed_id)]


def _chain(plan: Plan, evolve: Node, seed: "Seed", view: "SeedView") -> tuple[list["Version"], str]:
    """The chain, and where it comes from in words."""
    if not plan.store.has(evolve.id):
        return view.chain(evolve.identity, seed), "by the answers that are kept"
    from deita_train.stages.asking.chain_file import ChainFile

    return ChainFile(plan.store.path(evolve.id) / "data")[seed.id], evolve.id


def _versions(chain: Sequence["Version"]) -> str:
    states = (f"step {version.step} {version.operation} {version.status}" for version in chain[1:])
    return "; ".join(("step 0 the seed", *states))
