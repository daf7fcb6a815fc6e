"""The memory of a forward pass, by sums over a model's sizes. Imports nothing heavy."""

from typing import Any

MIN_BATCH_TOKENS, MAX_BATCH_TOKENS = 4096, 262_144


def key_width(config: Any) -> int:
    """Numbers in the keys of a token."""
    heads = config.num_attention_heads
    head_width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    return (getattr(config, "num_key_value_heads", None) or heads) * head_width


def token_bytes(config: Any, size: int, longest: int) -> int:
    """The bytes of one token's activations: the sum of `model_shape.automatic_batch_tokens`.

    Args:
        config: sizes under the names that transformers uses.
        size: bytes of a number.
        longest: tokens of the longest row.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or width // heads
    queries = heads * head_width
    keys = key_width(config)
    experts = getattr(config, "num_experts_per_tok", None) or 1
    mlp = experts * (getattr(config, "intermediate_size", None) or 4 * width)
    return size * (2 * width + 6 * queries + 3 * keys + 3 * mlp) + 8 * width + longest * (1 + size)
