"""A model's sizes from its config.json, under the names that transformers uses. Imports nothing heavy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.models.weight_shapes import Shapes, count_weights, is_tied, shapes_of_config
from deita_train.training.sizes import adapter_weights, frozen_layers, weights_below

_TABLES = ("embed_tokens.weight", "wte.weight", "wpe.weight")
_GPT2 = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_inner": "intermediate_size", "n_positions": "max_position_embeddings",
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What decides a model's operations and memory.

    Attributes:
        family: transformers' `model_type`.
        hidden_size: width of the residual stream.
        num_hidden_layers: number of layers.
        num_attention_heads: heads of queries.
        num_key_value_heads: heads of keys and of values.
        head_dim: width of a head.
        intermediate_size: width of the MLP.
        vocab_size: rows of the embedding table and of the output head.
        weights: all parameters.
        tables: those that are looked up, not multiplied: embedding tables, a tied one included.
        tied: whether the output head is the embedding table.
        shapes: of each weight by name.
    """

    family: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    weights: int
    tables: int
    tied: bool
    shapes: Shapes

    @property
    def trunk(self) -> int:
        """Weights of the layers: without embedding tables and without the output head."""
        return self.weights - self.tables - (0 if self.tied else self.head)

    @property
    def head(self) -> int:
        """Weights of the output head, whose own they are unless it is tied."""
        return self.vocab_size * self.hidden_size

    @property
    def queries(self) -> int:
        """Numbers in the queries of a token."""
        return self.num_attention_heads * self.head_dim

    @property
    def keys(self) -> int:
        """Numbers in the keys of a token."""
        return self.num_key_value_heads * self.head_dim

    def adapter(self, peft: Mapping[str, Any]) -> int | None:
        """Weights of an adapter; None where the fields of LoraConfig choose layers in a way that is not modelled."""
        return adapter_weights(self.shapes, peft)

    def frozen_layers(self, peft: Mapping[str, Any]) -> int:
        """Layers under the lowest adapter, which no gradient passes."""
        return frozen_layers(self.shapes, peft)

    def weights_below(self, layers: int) -> int:
        """Weights of the lowest `layers` layers."""
        return weights_below(self.shapes, layers)


def sizes_of(config: Mapping[str, Any]) -> Sizes | None:
    """The sizes of a model; None for a family whose weights are not known from its config.json."""
    shapes = shapes_of_config(config)
    if shapes is None:
        return None
    named = {ours: config[theirs] for theirs, ours in _GPT2.items() if config.get(theirs)} | dict(config)
    width, heads = named["hidden_size"], named["num_attention_heads"]
    return Sizes(
        family=config["model_type"],
        hidden_size=width,
        num_hidden_layers=named["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=named.get("num_key_value_heads") or heads,
        head_dim=named.get("head_dim") or width // heads,
        intermediate_size=named.get("intermediate_size") or 4 * width,
        vocab_size=config["vocab_size"],
        weights=count_weights(shapes),
        tables=sum(math.prod(shape) for name, shape in shapes.items() if name.endswith(_TABLES)),
        tied=is_tied(config),
        shapes=shapes,
    )
