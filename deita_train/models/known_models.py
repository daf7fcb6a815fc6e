"""What is known of models of the Hub without asking it: their shape, and the kind of their tokenizer.

Written after the models' config.json and tokenizer_config.json, for plans and rehearsals where neither the Hub nor its
cache has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class KnownModel:
    """A model by what its files say.

    Attributes:
        architecture: transformers' name, `model_type`.
        shape: fields of its configuration.
        tokens: special tokens of its tokenizer by their role.
        added: further control tokens of its tokenizer.
        template: its chat template by the package's name or trl's; None for a model without one.
        adds_bos: whether its tokenizer begins every text with the beginning of sequence.
    """

    architecture: str
    shape: Mapping[str, Any]
    tokens: Mapping[str, str]
    added: tuple[str, ...] = ()
    template: str | None = None
    adds_bos: bool = False


def _shape(sizes: Sequence[int], vocabulary: int, **more: Any) -> dict[str, Any]:
    """Fields of a configuration; `sizes` are width, inner width, layers, heads, and heads of keys and values."""
    width, inner, layers, heads, keys = sizes
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
        **more,
    }


_SENTENCEPIECE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_QWEN_ADDED = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_LLAMA3_ADDED = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_SMOLLM_ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_GEMMA_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
_LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def _llama(sizes: Sequence[int], vocabulary: int, **more: Any) -> KnownModel:
    return KnownModel("llama", _shape(sizes, vocabulary, **more), _SENTENCEPIECE, adds_bos=True)


def _llama3(sizes: Sequence[int], *, chat: bool, factor: float, **more: Any) -> KnownModel:
    rope = {"rope_parameters": {**_LLAMA3_ROPE, "factor": factor}}
    shape_of = _shape(sizes, 128_256, max_position_embeddings=131_072, rms_norm_eps=1e-5, **rope, **more)
    end = "<|eot_id|>" if chat else "<|end_of_text|>"
    names = {"bos_token": "<|begin_of_text|>", "eos_token": end}
    return KnownModel("llama", shape_of, names, _LLAMA3_ADDED, "llama3_2" if chat else None, adds_bos=True)


def _smollm2(sizes: Sequence[int], *, chat: bool) -> KnownModel:
    more: dict[str, Any] = {
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e5,
    }
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"} if chat else {"eos_token": "<|endoftext|>"}
    return KnownModel("llama", _shape(sizes, 49_152, **more), names, _SMOLLM_ADDED, "chatml" if chat else None)


def _qwen3(sizes: Sequence[int], *, chat: bool, tied: bool) -> KnownModel:
    more: dict[str, Any] = {
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-6,
    }
    end = "<|im_end|>" if chat else "<|endoftext|>"
    names = {"eos_token": end, "pad_token": "<|endoftext|>"}
    return KnownModel("qwen3", _shape(sizes, 151_936, **more), names, _QWEN_ADDED, "qwen3")


def _olmo2(sizes: Sequence[int]) -> KnownModel:
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    more: dict[str, Any] = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 500_000.0}
    return KnownModel("olmo2", _shape(sizes, 100_352, **more), names, ("<|im_start|>", "<|im_end|>"))


def _qwen2(sizes: Sequence[int], vocabulary: int = 151_936, *, tied: bool) -> KnownModel:
    more: dict[str, Any] = {
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
    }
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return KnownModel("qwen2", _shape(sizes, vocabulary, **more), names, _QWEN_ADDED, "chatml")


def _gemma2(sizes: Sequence[int]) -> KnownModel:
    more: dict[str, Any] = {
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    }
    added = ("<start_of_turn>", "<end_of_turn>")
    return KnownModel("gemma2", _shape(sizes, 256_000, **more), _GEMMA_TOKENS, added, adds_bos=True)


def _gemma3(sizes: Sequence[int], *, chat: bool) -> KnownModel:
    more: dict[str, Any] = {
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "sliding_window": 512,
        "tie_word_embeddings": True,
    }
    added = ("<start_of_turn>", "<end_of_turn>")
    template = "gemma3" if chat else None
    return KnownModel("gemma3_text", _shape(sizes, 262_144, **more), _GEMMA_TOKENS, added, template, adds_bos=True)


_LLAMA_7B, _LLAMA_13B = (4096, 11_008, 32, 32, 32), (5120, 13_824, 40, 40, 40)
_MISTRAL: Mapping[str, Any] = {
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
}
_SCORER = _llama(_LLAMA_7B, 32_001, max_position_embeddings=2048, rms_norm_eps=1e-6)

KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType(
    {
        "mistralai/Mistral-7B-v0.1": KnownModel(
            "mistral", _shape((4096, 14_336, 32, 32, 8), 32_000, **_MISTRAL), _SENTENCEPIECE, adds_bos=True
        ),
        "mistralai/Mistral-7B-v0.3": KnownModel(
            "mistral",
            _shape((4096, 14_336, 32, 32, 8), 32_768, **{**_MISTRAL, "sliding_window": None, "rope_theta": 1e6}),
            _SENTENCEPIECE,
            adds_bos=True,
        ),
        "huggyllama/llama-7b": _llama(_LLAMA_7B, 32_000, max_position_embeddings=2048, rms_norm_eps=1e-6),
        "huggyllama/llama-13b": _llama(_LLAMA_13B, 32_000, max_position_embeddings=2048, rms_norm_eps=1e-6),
        "meta-llama/Llama-2-7b-hf": _llama(_LLAMA_7B, 32_000, max_position_embeddings=4096, rms_norm_eps=1e-5),
        "meta-llama/Llama-2-13b-hf": _llama(_LLAMA_13B, 32_000, max_position_embeddings=4096, rms_norm_eps=1e-5),
        "hkust-nlp/deita-complexity-scorer": _SCORER,
        "hkust-nlp/deita-quality-scorer": _SCORER,
        "HuggingFaceTB/SmolLM2-135M": _smollm2((576, 1536, 30, 9, 3), chat=False),
        "HuggingFaceTB/SmolLM2-135M-Instruct": _smollm2((576, 1536, 30, 9, 3), chat=True),
        "HuggingFaceTB/SmolLM2-360M": _smollm2((960, 2560, 32, 15, 5), chat=False),
        "HuggingFaceTB/SmolLM2-360M-Instruct": _smollm2((960, 2560, 32, 15, 5), chat=True),
        "HuggingFaceTB/SmolLM2-1.7B": _smollm2((2048, 8192, 24, 32, 32), chat=False),
        "HuggingFaceTB/SmolLM2-1.7B-Instruct": _smollm2((2048, 8192, 24, 32, 32), chat=True),
        "Qwen/Qwen2.5-0.5B": _qwen2((896, 4864, 24, 14, 2), tied=True),
        "Qwen/Qwen2.5-1.5B": _qwen2((1536, 8960, 28, 12, 2), tied=True),
        "Qwen/Qwen2.5-3B": _qwen2((2048, 11_008, 36, 16, 2), tied=True),
        "Qwen/Qwen2.5-7B": _qwen2((3584, 18_944, 28, 28, 4), 152_064, tied=False),
        "Qwen/Qwen3-0.6B-Base": _qwen3((1024, 3072, 28, 16, 8), chat=False, tied=True),
        "Qwen/Qwen3-1.7B-Base": _qwen3((2048, 6144, 28, 16, 8), chat=False, tied=True),
        "Qwen/Qwen3-4B-Base": _qwen3((2560, 9728, 36, 32, 8), chat=False, tied=True),
        "Qwen/Qwen3-8B-Base": _qwen3((4096, 12_288, 36, 32, 8), chat=False, tied=False),
        "Qwen/Qwen3-0.6B": _qwen3((1024, 3072, 28, 16, 8), chat=True, tied=True),
        "Qwen/Qwen3-1.7B": _qwen3((2048, 6144, 28, 16, 8), chat=True, tied=True),
        "Qwen/Qwen3-4B": _qwen3((2560, 9728, 36, 32, 8), chat=True, tied=True),
        "Qwen/Qwen3-8B": _qwen3((4096, 12_288, 36, 32, 8), chat=True, tied=False),
        "meta-llama/Meta-Llama-3-8B": KnownModel(
            "llama",
            _shape((4096, 14_336, 32, 32, 8), 128_256, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=5e5),
            {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
            _LLAMA3_ADDED,
            adds_bos=True,
        ),
        "meta-llama/Llama-3.2-1B": _llama3((2048, 8192, 16, 32, 8), chat=False, factor=32.0, tie_word_embeddings=True),
        "meta-llama/Llama-3.2-3B": _llama3((3072, 8192, 28, 24, 8), chat=False, factor=32.0, tie_word_embeddings=True),
        "meta-llama/Llama-3.1-8B": _llama3((4096, 14_336, 32, 32, 8), chat=False, factor=8.0),
        "meta-llama/Llama-3.2-1B-Instruct": _llama3(
            (2048, 8192, 16, 32, 8), chat=True, factor=32.0, tie_word_embeddings=True
        ),
        "meta-llama/Llama-3.1-8B-Instruct": _llama3((4096, 14_336, 32, 32, 8), chat=True, factor=8.0),
        "allenai/OLMo-2-0425-1B": _olmo2((2048, 8192, 16, 16, 16)),
        "allenai/OLMo-2-1124-7B": _olmo2((4096, 11_008, 32, 32, 32)),
        "google/gemma-2-2b": _gemma2((2304, 9216, 26, 8, 4)),
        "google/gemma-2-9b": _gemma2((3584, 14_336, 42, 16, 8)),
        "google/gemma-3-270m": _gemma3((640, 2048, 18, 4, 1), chat=False),
        "google/gemma-3-1b-pt": _gemma3((1152, 6912, 26, 4, 1), chat=False),
        "google/gemma-3-1b-it": _gemma3((1152, 6912, 26, 4, 1), chat=True),
        "openai-community/gpt2": KnownModel(
            "gpt2",
            {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50_257},
            {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
        ),
    }
)
"""Models of the Hub that the shipped recipes name, or are likely to be named, by their ids."""


def known_config(name: str) -> dict[str, Any] | None:
    """The shape of a model of the Hub as a config.json; None for one that is not in the table."""
    known = KNOWN_MODELS.get(name)
    return None if known is None else {"model_type": known.architecture, **known.shape}
