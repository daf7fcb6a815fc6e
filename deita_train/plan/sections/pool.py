"""Section `pool:`, the conversations that are scored, embedded and selected from."""

from deita_train.plan.sections.builder import Builder
from deita_train.recipe.data_sections import Pool


def add_pool(builder: Builder, pool: Pool) -> None:
    """Add the stage that reads and merges the pool's sources."""
    builder.add_pool("pool", pool.all_sources(), "pool")
