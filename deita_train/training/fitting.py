"""How many sequences fit into memory besides weights, gradients and optimizer moments. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deita_train.training.sizes import trained_dtype

# The rest is for the output head's chunks, attention's workspace, communication buffers and fragmentation.
_USED_SHARE = 0.8


@dataclass(frozen=True)
class Precision:
    """Bytes per stored weight, and whether layers compute in two bytes from float32 weights (autocast)."""

    weight: int
    autocast: bool

    @classmethod
    def of(cls, model_init_kwargs: Mapping[str, Any] | None, *, is_half: bool) -> "Precision":
        """Follow trl's loading: float32 unless `model_init_kwargs` overrides it. A quantized model takes less."""
        dtype = trained_dtype({"model_init_kwargs": model_init_kwargs})
        weight = 4 if dtype in ("float32", "auto") else 2
        return cls(weight, autocast=is_half and weight == 4)


class TrainedShape(Protocol):
    """A model's configuration, and its numbers of all and of trained parameters, including an adapter's."""

    @property
    def config(self) -> Any:
        """Sizes under the names that transformers uses."""

    @property
    def weights(self) -> int:
        """All parameters."""

    @property
    def trained(self) -> int:
        """Those that are trained."""


def sequences_that_fit(
    shape: TrainedShape,
    precision: Precision,
    *,
    checkpointing: bool,
    sharding: tuple[str, int],
    longest: int,
    free_bytes: int,
) -> int:
    """Count the sequences that fit on a device before the model is loaded.

    With activation checkpointing, a token keeps one vector per layer plus everything of the one layer that is being
    recomputed, counted twice for its gradients.

    Args:
        shape: The model's shape.
        precision: How weights are stored and layers computed.
        checkpointing: Whether activations are recomputed.
        sharding: The distributed type and world size, as :func:`state_bytes` takes them.
        longest: Tokens of the longest sequence.
        free_bytes: Free memory of the device.

    Returns:
        The number of sequences, at least 1.
    """
    left = _USED_SHARE * free_bytes - state_bytes(shape, precision, *sharding)
    layer, layers = layer_bytes(shape.config, precision), shape.config.num_hidden_layers
    boundary = precision.weight * shape.config.hidden_size  # a token's vector between two layers
    token = layers * boundary + 2 * layer if checkpointing else (layers + 1) * layer
    return max(1, int(left) // (token * longest))


def state_bytes(shape: TrainedShape, precision: Precision, distributed_type: str, world_size: int) -> int:
    """Count the bytes one rank stores for the model and for training it with Adam.

    A frozen weight is stored once, a trained one four times (itself, its gradient, two moments), and under autocast
    once more in two bytes. FSDP and ZeRO-3 shard all of it over the ranks, ZeRO-2 all but the weights, ZeRO-1 the
    moments.
    """
    kept = precision.weight * shape.weights
    learnt = 3 * precision.weight * shape.trained
    cast = 2 * shape.weights if precision.autocast else 0
    if distributed_type in ("FSDP", "ZERO3"):
        return (kept + learnt) // world_size + cast
    if distributed_type == "ZERO2":
        return kept + learnt // world_size + cast
    if distributed_type == "ZERO1":
        return kept + learnt // 3 + 2 * learnt // 3 // world_size + cast
    return kept + learnt + cast


def layer_bytes(config: Any, precision: Precision) -> int:
    """Count the bytes a LLaMA-like layer keeps per token for its gradients.

    With a model of width D and an MLP of width I: 40 D + 16 I in float32, 24 D + 8 I in bfloat16, and 34 D + 8 I under
    autocast, where the residual stream stays float32. Counted in transformers' layers without grouped-query attention;
    a test repeats the count. torch's `scaled_dot_product_attention` keeps no attention scores.
    """
    width = config.hidden_size
    experts = getattr(config, "num_experts_per_tok", None) or 1
    mlp = experts * (getattr(config, "intermediate_size", None) or 4 * width)
    if precision.autocast:
        return 34 * width + 8 * mlp
    return 40 * width + 16 * mlp if precision.weight == 4 else 24 * width + 8 * mlp
