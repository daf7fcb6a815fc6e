"""Section `perplexity:`, which measures the columns that the methods perplexity and ifd read."""

from deita_train.plan.node import Node
from deita_train.plan.sections.builder import PASS_MAX_LENGTH, Builder
from deita_train.recipe.scoring_sections import Perplexity


def add_perplexity(builder: Builder, perplexity: Perplexity) -> None:
    """Add the pass that measures the pool's answers."""
    pool = builder.pool("perplexity")
    model = builder.model(perplexity.model, perplexity.revision, "perplexity", adapters=True)
    dtype, how = builder.of_pass(perplexity, "perplexity")
    builder.check_limits(model, "perplexity", ("max_length", perplexity.max_length))
    template = builder.chat_template(perplexity.chat_template, "perplexity", model)
    decides, rendering = builder.of_rendering(perplexity, "perplexity", template)
    identity = {
        **model.identity,
        "chat_template": template.text,
        **decides,
        "max_length": perplexity.max_length,
        "max_length_limit": PASS_MAX_LENGTH,
        "ifd": perplexity.ifd,
        **dtype,
    }
    runtime = {**model.location, **how, **rendering}
    builder.add(Node("perplexity", "perplexity", identity, runtime, {"pool": pool, **model.parents}))
