"""The shapes of a model's weights, from the headers of its safetensors files or from config.json.

Allocates nothing and imports nothing heavy, so `plan` can report sizes immediately.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deita_train.store.atomic_io import read_json

INDEX = "model.safetensors.index.json"
Shapes = Mapping[str, tuple[int, ...]]
# A safetensors file starts with the length of a JSON text, 64-bit little-endian; then comes the text.
_LENGTH = struct.Struct("<Q")


def shapes_in_folder(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each saved weight by name; empty if the folder holds no safetensors."""
    return {name: shape for path in weight_files(folder) for name, shape in _header(path)}


def count_weights(shapes: Shapes) -> int:
    """Total number of parameters."""
    return sum(math.prod(shape) for shape in shapes.values())


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads; Hub models may contain the same weights in a second layout."""
    index, single = folder / INDEX, folder / "model.safetensors"
    if index.exists():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    return [single] if single.exists() else sorted(folder.glob("*.safetensors"))


def _header(path: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    """The name and the shape of each weight in a safetensors file.

    Raises:
        ValueError: it is none, or is cut off within its header.
    """
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        (length,) = _LENGTH.unpack(start) if len(start) == _LENGTH.size else (None,)
        if length is None or length > path.stat().st_size:
            raise ValueError(f"{path} is not a complete safetensors file")
        header = json.loads(file.read(length))
    return [(name, tuple(entry["shape"])) for name, entry in header.items() if name != "__metadata__"]


# Architectures whose weight shapes follow from these few numbers: attention, and a gated MLP.
_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma2", "gemma3_text")
# Families whose config.json leaves it out where the output head is the embedding table.
_TIED_BY_DEFAULT = ("gemma2", "gemma3_text", "gpt2")
_NUMBERS = ("hidden_size", "vocab_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
_NORMS: Mapping[str, Sequence[str]] = {
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    **dict.fromkeys(
        ("gemma2", "gemma3_text"),
        (
            "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
        ),
    ),
}  # fmt: skip


def shapes_of_config(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """The weight shapes of a model of the families above, or of GPT-2, from its config.json; None for other models."""
    kind = config.get("model_type")
    if kind == "gpt2":
        return _gpt2_shapes(config)
    if kind not in _LLAMA_LIKE or not all(name in config for name in _NUMBERS):
        return None
    width, vocabulary, heads, num_layers, inner = (config[name] for name in _NUMBERS)
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, width),
        "self_attn.k_proj.weight": (keys, width),
        "self_attn.v_proj.weight": (keys, width),
        "self_attn.o_proj.weight": (width, queries),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
    }
    for norm in _NORMS.get(kind, ("input_layernorm", "post_attention_layernorm")):
        layer[f"{norm}.weight"] = (width,)
    if kind in ("qwen3", "gemma3_text"):  # of each head; OLMo 2 has one over all heads
        layer |= {f"self_attn.{name}_norm.weight": (head,) for name in "qk"}
    elif kind == "olmo2":
        layer |= {"self_attn.q_norm.weight": (queries,), "self_attn.k_norm.weight": (keys,)}
    for part in _with_bias(kind, config):
        layer[f"{part}.bias"] = layer[f"{part}.weight"][:1]
    shapes = {f"model.layers.{number}.{name}": shape for number in range(num_layers) for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    return shapes if is_tied(config) else {**shapes, "lm_head.weight": (vocabulary, width)}


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output head is the embedding table."""
    return bool(config.get("tie_word_embeddings", config.get("model_type") in _TIED_BY_DEFAULT))


def _gpt2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    names = ("n_embd", "vocab_size", "n_layer", "n_positions")
    if not all(name in config for name in names):
        return None
    width, vocabulary, num_layers, positions = (config[name] for name in names)
    inner = config.get("n_inner") or 4 * width
    linear = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
    linear |= {"mlp.c_fc": (width, inner), "mlp.c_proj": (inner, width)}
    layer: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in linear.items()}
    layer |= {f"{name}.bias": shape[1:] for name, shape in linear.items()}
    layer |= {f"{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    shapes = {f"transformer.h.{number}.{name}": shape for number in range(num_layers) for name, shape in layer.items()}
    tables = {"transformer.wte.weight": (vocabulary, width), "transformer.wpe.weight": (positions, width)}
    last = {f"transformer.ln_f.{part}": (width,) for part in ("weight", "bias")}
    head = {} if is_tied(config) else {"lm_head.weight": (vocabulary, width)}
    return {**shapes, **tables, **last, **head}


def _with_bias(kind: str, config: Mapping[str, Any]) -> list[str]:
    """The linear layers of a block that have a bias."""
    attention = [f"self_attn.{name}_proj" for name in "qkvo"]
    if kind == "qwen2":
        return attention[:3]
    mlp = [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    return [*(attention if config.get("attention_bias") else []), *(mlp if config.get("mlp_bias") else [])]
