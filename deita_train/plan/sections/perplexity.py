"""Section `perplexity:`, which measures the columns that the methods perplexity and ifd read."""

from deita_train.plan.node import Node
from deita_train.plan.sections.builder import PASS_MAX_LENGTH, Builder
from deita_train.recipe.scoring_sections import Perplexity


def add_perplexity(builder: Builder, perplexity: Perplexity) -> None:
    """Add the pass that measures the pool's answers."""
    pool = builder.required("pool", "perplexity", "pool:")
    model = builder.model(perplexity.model, perplexity.revision, "perplexity", adapters=True)
    dtype, how = builder.of_pass(perplexity, "perplexity")
    identity = {
        **model.identity,
        "chat_template": builder.chat_template(perplexity.chat_template, "perplexity", model),
        "max_length": perplexity.max_length,
        "max_length_limit": PASS_MAX_LENGTH,
        **dtype,
    }
    builder.add(Node("perplexity", "perplexity", identity, {**model.location, **how}, {"pool": pool, **model.parents}))
