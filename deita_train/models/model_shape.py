"""What a model's config.json says of its shape: its context, its weights, the memory that a batch takes."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.models.adapter_files import is_adapter, locate_base
from deita_train.models.hub import hub_folder
from deita_train.models.remote_code import own_code

MIN_BATCH_TOKENS, MAX_BATCH_TOKENS = 4096, 262_144
# Of the memory that the weights leave; the rest is for the output head's chunks, kernels' workspaces, fragments.
_USED_SHARE = 0.5


def load_config(folder: Path, trust_code: bool = False) -> Any:
    """The transformers configuration of a model, or of an adapter's base; of its text part where it has others."""
    if is_adapter(folder):
        base = locate_base(folder)
        folder = base.folder or hub_folder(base.hub, base.revision, str(folder), allow=["config.json"])
    with own_code(folder, trust_code):
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_code).get_text_config()


def context_length(config: Any) -> int | None:
    """How many positions the model was made for; None where its configuration states none."""
    length: int | None = getattr(config, "max_position_embeddings", None)
    return length


def num_weights(config: Any) -> int:
    """How many parameters a causal language model of this shape has, its output head included; nothing is allocated."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(weight.numel() for weight in model.parameters())


def automatic_batch_tokens(config: Any, dtype: str, free_bytes: int, longest: int) -> int:
    """How many tokens a padded batch may have on a GPU with `free_bytes` before the model is loaded.

    Half of what the weights leave, divided by the bytes of one token, and between 4,096 and 262,144. Only one layer's
    activations live at a time, and logits exist for single positions alone. With width D, H heads of E numbers for
    queries (Q = H x E) and fewer for keys (K), MLP width I, rows of up to T tokens and s bytes per number, a token has

        s x 2D + 4 x 2D     residual stream and its normed copy; the norm computes with two float32 copies
        s x (6Q + 3K)       queries, keys and values, what rotates them, keys and values repeated for all heads, output
        T x (1 + s)         its row of the attention mask, as booleans and as numbers
        s x 3I              the MLP's gate, its other half and their product

    as if nothing of a layer were freed before its end. Attention scores [T, T] are not kept: the kernels of torch's
    `scaled_dot_product_attention` never write them. What is wrong here costs time and no result: a batch that is too
    large after all is computed in halves.
    """
    size = torch.finfo(getattr(torch, dtype)).bits // 8
    free = free_bytes - size * num_weights(config)
    tokens = int(_USED_SHARE * free) // _token_bytes(config, size, longest)
    return min(max(tokens, MIN_BATCH_TOKENS), MAX_BATCH_TOKENS)


def _token_bytes(config: Any, size: int, longest: int) -> int:
    """The bytes of one token's activations: the sum above."""
    width, heads = config.hidden_size, config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or width // heads
    queries = heads * head_width
    keys = (getattr(config, "num_key_value_heads", None) or heads) * head_width
    experts = getattr(config, "num_experts_per_tok", None) or 1
    mlp = experts * (getattr(config, "intermediate_size", None) or 4 * width)
    return size * (2 * width + 6 * queries + 3 * keys + 3 * mlp) + 8 * width + longest * (1 + size)
