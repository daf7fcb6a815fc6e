"""Section `pool:`, the conversations that are scored, embedded and selected from."""

from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.recipe.data_sections import Pool


def add_pool(builder: Builder, pool: Pool) -> None:
    """Add the stage that reads and merges the pool's sources, and the one that cleans what it read."""
    read = builder.add_pool("pool", pool.all_sources(), "pool")
    if pool.deduplicate is None and pool.mix is None:
        return
    copies, mix = pool.deduplicate, pool.mix
    identity = {
        "deduplicate": None if copies is None else copies.model_dump(),
        "mix": None if mix is None else {**mix.model_dump(), "seed": builder.seed(mix.seed)},
    }
    builder.add(Node("clean_pool", "clean_pool", identity, {}, {"pool": read}))
