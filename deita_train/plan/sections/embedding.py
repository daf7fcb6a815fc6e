"""Section `embedding:`, which embeds the pool."""

from typing import Any

from deita_train.plan.embedded_rows import check_rows
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import PASS_MAX_LENGTH, Builder, Model
from deita_train.recipe.scoring_sections import Embedding


def add_embedding(builder: Builder, embedding: Embedding) -> None:
    """Add the embedding of the pool, by a language model or by a model of sentence-transformers."""
    check_rows(builder)
    add_embedded(builder, embedding, "embed", builder.pool("embedding"))


def add_embedded(builder: Builder, embedding: Embedding, label: str, pool: Node) -> Node:
    """Add the embedding of conversations by the encoder of `embedding:`."""
    dtype, how = builder.of_pass(embedding, "embedding")
    kind, model, choices, rendering = _encoder(builder, embedding)
    identity = {**model.identity, **choices, "max_length": embedding.max_length, **dtype}
    runtime = {**model.location, **how, **rendering, "reuse_rows": embedding.reuse_rows}
    return builder.add(Node(label, kind, identity, runtime, {"pool": pool, **model.parents}))


def _encoder(builder: Builder, embedding: Embedding) -> tuple[str, Model, dict[str, Any], dict[str, Any]]:
    """The kind of stage that embeds, its model, what else decides its vectors, and how it renders."""
    if embedding.sentence_transformer is not None:
        name, revision = embedding.sentence_transformer, embedding.revision
        outside = builder.outside_model(name, revision, "embedding", field="sentence_transformer")
        return "sentence_embed", outside, {"storage": embedding.storage}, {}
    assert embedding.model is not None
    model = builder.model(embedding.model, embedding.revision, "embedding", adapters=True)
    builder.check_limits(model, "embedding", ("max_length", embedding.max_length))
    template = builder.chat_template(embedding.chat_template, "embedding", model, marked=False)
    choices = {"storage": embedding.storage, "pooling": embedding.pooling, "max_length_limit": PASS_MAX_LENGTH}
    decides, rendering = builder.of_rendering(embedding, "embedding", template)
    return "embed", model, {"chat_template": template.text, **decides, **choices}, rendering
