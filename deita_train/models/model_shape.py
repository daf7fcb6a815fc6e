"""A model's shape from its config.json: context length, number of weights, memory per batch."""

from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from deita_train.errors import UserError
from deita_train.models.adapter_files import is_adapter, locate_base
from deita_train.models.hub import hub_folder
from deita_train.models.pass_memory import MAX_BATCH_TOKENS, MIN_BATCH_TOKENS, key_width, token_bytes
from deita_train.models.remote_code import own_code

# Share of the memory left by the weights; the rest is for output head chunks, kernel workspaces, fragmentation.
_USED_SHARE = 0.5


def load_config(folder: Path, trust_code: bool = False) -> Any:
    """The transformers configuration of a model or of an adapter's base; of a multimodal model, its text part."""
    return whole_config(folder, trust_code).get_text_config()


def whole_config(folder: Path, trust_code: bool = False) -> Any:
    """The transformers configuration of a model or of an adapter's base, with every part of a multimodal one.

    Raises:
        UserError: transformers does not know the architecture.
    """
    if is_adapter(folder):
        base = locate_base(folder)
        folder = base.folder or hub_folder(base.hub, base.revision, str(folder), allow=["config.json"])
    try:
        with own_code(folder, trust_code):
            return AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_code)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".: ")
        raise UserError(
            f"{folder}: transformers cannot tell the architecture from its config.json ({reason}); copy the "
            "model's own config.json there, or install the version of transformers that knows it."
        ) from error


def causal_problem(config: Any) -> str | None:
    """Why transformers gives no causal language model for a whole configuration; None where it does."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return (
            f"transformers has no causal language model of the type {config.model_type}; choose one that "
            "AutoModelForCausalLM loads, such as the family's model for text alone."
        )
    if getattr(config, "is_encoder_decoder", False):
        return f"{config.model_type} is an encoder with a decoder; choose a causal language model."
    return None


def context_length(config: Any) -> int | None:
    """The model's context length in tokens; None if its configuration states none.

    Rotary positions that are stretched by a factor reach as far as the configuration says, also where it leaves
    `max_position_embeddings` at the length before stretching.
    """
    length: int | None = getattr(config, "max_position_embeddings", None)
    if length is None:
        length = getattr(config, "max_seq_len", None)
    stated = getattr(config, "rope_parameters", None) or {}
    ropes = [stated, *(of for of in stated.values() if isinstance(of, dict))]
    stretched = [
        int(rope["factor"] * rope["original_max_position_embeddings"])
        for rope in ropes
        if rope.get("factor") and rope.get("original_max_position_embeddings")
    ]
    return length if length is None else max([length, *stretched])


def num_weights(config: Any) -> int:
    """Number of parameters of a causal model of this shape, output head included; allocates nothing."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(weight.numel() for weight in model.parameters())


def automatic_batch_tokens(config: Any, dtype: str, free_bytes: int, longest: int) -> int:
    """Tokens that a padded batch may have on a GPU with `free_bytes` before the model is loaded.

    Half of the memory that the weights leave, divided by the bytes per token, clamped to 4,096..262,144. Only one
    layer's activations are alive at a time, and logits exist only for single positions. With width D, H heads of E
    numbers for queries (Q = H x E) and fewer for keys (K), MLP width I, rows of up to T tokens and s bytes per number,
    a token takes

        s x 2D + 4 x 2D     residual stream and its normed copy; the norm uses two float32 copies
        s x (6Q + 3K)       queries, keys, values, their rotations, keys and values repeated for all heads, output
        T x (1 + s)         its row of the attention mask, as booleans and as numbers
        s x 3I              the MLP's gate, its other half and their product

    assuming that nothing of a layer is freed before its end. Attention scores [T, T] are not stored: the kernels of
    torch's `scaled_dot_product_attention` never write them. An error here costs time but never a result, because a
    batch that turns out too large is computed in halves.
    """
    size = torch.finfo(getattr(torch, dtype)).bits // 8
    return _tokens_of(config, size, free_bytes, token_bytes(config, size, longest))


def generation_batch_tokens(config: Any, dtype: str, free_bytes: int, longest: int) -> int:
    """The same where rows are continued: a token also takes its keys and values in every layer, kept to the end."""
    size = torch.finfo(getattr(torch, dtype)).bits // 8
    kept = 2 * size * config.num_hidden_layers * key_width(config)
    return _tokens_of(config, size, free_bytes, token_bytes(config, size, longest) + kept)


def _tokens_of(config: Any, size: int, free_bytes: int, of_token: int) -> int:
    tokens = int(_USED_SHARE * (free_bytes - size * num_weights(config))) // of_token
    return min(max(tokens, MIN_BATCH_TOKENS), MAX_BATCH_TOKENS)
