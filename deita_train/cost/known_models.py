"""Shapes of models on the Hub that the shipped recipes name, for a plan without a network. Imports nothing heavy.

The numbers are those of each model's own config.json, as far as they decide its weights.
"""

from collections.abc import Mapping
from typing import Any

_Config = dict[str, Any]


def _config(
    family: str,
    width: int,
    inner: int,
    layers: int,
    heads: tuple[int, int],
    vocabulary: int,
    *,
    tied: bool = False,
    head_dim: int | None = None,
) -> _Config:
    """A config.json; `heads` are those of queries and of keys."""
    config = {
        "model_type": family,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    return config if head_dim is None else {**config, "head_dim": head_dim}


_LLAMA_7B = _config("llama", 4096, 11008, 32, (32, 32), 32_000)
_LLAMA_13B = _config("llama", 5120, 13824, 40, (40, 40), 32_000)
_DEITA_SCORER = {**_LLAMA_7B, "vocab_size": 32_001}
_LLAMA_3_8B = _config("llama", 4096, 14336, 32, (32, 8), 128_256)
_QWEN3_0_6B = _config("qwen3", 1024, 3072, 28, (16, 8), 151_936, tied=True, head_dim=128)
_QWEN3_1_7B = _config("qwen3", 2048, 6144, 28, (16, 8), 151_936, tied=True, head_dim=128)
_QWEN3_4B = _config("qwen3", 2560, 9728, 36, (32, 8), 151_936, tied=True, head_dim=128)
_QWEN3_8B = _config("qwen3", 4096, 12288, 36, (32, 8), 151_936, head_dim=128)
_SMOLLM2_135M = _config("llama", 576, 1536, 30, (9, 3), 49_152, tied=True)
_SMOLLM2_360M = _config("llama", 960, 2560, 32, (15, 5), 49_152, tied=True)
_SMOLLM2_1_7B = _config("llama", 2048, 8192, 24, (32, 32), 49_152, tied=True)

KNOWN_MODELS: Mapping[str, _Config] = {
    "huggyllama/llama-7b": _LLAMA_7B,
    "huggyllama/llama-13b": _LLAMA_13B,
    "meta-llama/Llama-2-7b-hf": _LLAMA_7B,
    "meta-llama/Llama-2-13b-hf": _LLAMA_13B,
    "hkust-nlp/deita-complexity-scorer": _DEITA_SCORER,
    "hkust-nlp/deita-quality-scorer": _DEITA_SCORER,
    "mistralai/Mistral-7B-v0.1": _config("mistral", 4096, 14336, 32, (32, 8), 32_000),
    "mistralai/Mistral-7B-v0.3": _config("mistral", 4096, 14336, 32, (32, 8), 32_768),
    "meta-llama/Meta-Llama-3-8B": _LLAMA_3_8B,
    "meta-llama/Llama-3.1-8B": _LLAMA_3_8B,
    "meta-llama/Llama-3.2-1B": _config("llama", 2048, 8192, 16, (32, 8), 128_256, tied=True, head_dim=64),
    "meta-llama/Llama-3.2-3B": _config("llama", 3072, 8192, 28, (24, 8), 128_256, tied=True, head_dim=128),
    "HuggingFaceTB/SmolLM2-135M": _SMOLLM2_135M,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2_135M,
    "HuggingFaceTB/SmolLM2-360M": _SMOLLM2_360M,
    "HuggingFaceTB/SmolLM2-360M-Instruct": _SMOLLM2_360M,
    "HuggingFaceTB/SmolLM2-1.7B": _SMOLLM2_1_7B,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _SMOLLM2_1_7B,
    "Qwen/Qwen2.5-0.5B": _config("qwen2", 896, 4864, 24, (14, 2), 151_936, tied=True),
    "Qwen/Qwen2.5-1.5B": _config("qwen2", 1536, 8960, 28, (12, 2), 151_936, tied=True),
    "Qwen/Qwen2.5-3B": _config("qwen2", 2048, 11008, 36, (16, 2), 151_936, tied=True),
    "Qwen/Qwen2.5-7B": _config("qwen2", 3584, 18944, 28, (28, 4), 152_064),
    "Qwen/Qwen3-0.6B": _QWEN3_0_6B,
    "Qwen/Qwen3-0.6B-Base": _QWEN3_0_6B,
    "Qwen/Qwen3-1.7B": _QWEN3_1_7B,
    "Qwen/Qwen3-1.7B-Base": _QWEN3_1_7B,
    "Qwen/Qwen3-4B": _QWEN3_4B,
    "Qwen/Qwen3-4B-Base": _QWEN3_4B,
    "Qwen/Qwen3-8B": _QWEN3_8B,
    "Qwen/Qwen3-8B-Base": _QWEN3_8B,
    "allenai/OLMo-2-0425-1B": _config("olmo2", 2048, 8192, 16, (16, 16), 100_352),
    "allenai/OLMo-2-1124-7B": _config("olmo2", 4096, 11008, 32, (32, 32), 100_352),
    "google/gemma-2-2b": _config("gemma2", 2304, 9216, 26, (8, 4), 256_000, tied=True, head_dim=256),
    "google/gemma-2-9b": _config("gemma2", 3584, 14336, 42, (16, 8), 256_000, tied=True, head_dim=256),
    "google/gemma-3-270m": _config("gemma3_text", 640, 2048, 18, (4, 1), 262_144, tied=True, head_dim=256),
    "google/gemma-3-1b-pt": _config("gemma3_text", 1152, 6912, 26, (4, 1), 262_144, tied=True, head_dim=256),
    "openai-community/gpt2": {
        "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50_257,
    },
}  # fmt: skip


def known_config(name: str) -> _Config | None:
    """The shape of a Hub model as a config.json; None for one that is not in the table."""
    return KNOWN_MODELS.get(name)
