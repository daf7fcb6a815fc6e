"""A tiny copy of a model's architecture: its classes and settings, a few narrow layers, random weights.

What an architecture does to its logits, or to several conversations in one row, shows on it within a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 64
# Of float32, a second's work to draw; beyond it the copy is not tiny.
_MOST_WEIGHTS = 100_000_000
_LAYERS, _HEADS, _WIDTH, _INNER, _EXPERTS, _WINDOW = 2, 4, 256, 64, 8, 4
_DEPTH, _HEADS_NAME, _KEYS_NAME, _WIDTH_NAME = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size",
)  # fmt: skip
# A pattern of kinds of layers is kept up to this length.
_LONGEST_PATTERN = 12
_INNER_SIZES = (
    "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_dim", "n_inner",
    "decoder_ffn_dim",
)  # fmt: skip
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN_EXPERTS = ("num_experts_per_tok", "moe_topk", "moe_k")
_EXPERT_GROUPS = ("n_group", "topk_group")
_VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input")
# Of state-space layers: their heads, the width of one, and how many times the model's width all have together.
_STATE_HEADS = (
    ("mamba_n_heads", "mamba_d_head", "mamba_expand"),
    ("n_mamba_heads", "mamba_headdim", "mamba_expand"),
    ("num_heads", "head_dim", "expand"),
)
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_TOKEN = 1

Settings = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How small a copy is made.

    Attributes:
        narrow: whether heads, widths and inner layers are reduced, or only the number of layers and the vocabulary.
        vocabulary: rows of the embeddings; None keeps the model's own.
        tokens: the ids of special tokens by transformers' names; None for one id for all.
        window: most tokens of a sliding window.
        head: most dimensions of an attention head; None keeps the model's own.
    """

    narrow: bool = True
    vocabulary: int | None = VOCABULARY
    tokens: Mapping[str, Any] | None = None
    window: int = _WINDOW
    head: int | None = None


class NotCopied(Exception):
    """No tiny copy can be made of this architecture; the message says why."""


def tiny_copy(config: Any) -> PreTrainedModel:
    """A causal model of the configuration's classes with a few narrow layers, float32, in evaluation mode, on the CPU.

    Layers are as wide as a few of the model's own heads, so that what depends on a head's width stays as it is. Random
    weights are large enough that logits differ by several units, and the same each time.

    Raises:
        NotCopied: no smaller configuration gives a model that computes.
    """
    reason = ""
    for narrow in (True, False):
        try:
            return _built(small_config(config, Sizes(narrow=narrow)))
        except Exception as error:  # whatever an architecture raises when its sizes do not go together
            reason = reason or f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    raise NotCopied(reason)


def _built(config: Any) -> PreTrainedModel:
    """The model of a small configuration, once it has computed something."""
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if weights > _MOST_WEIGHTS:
        raise NotCopied(f"even with few layers it has {weights:,} weights")
    with torch.random.fork_rng():  # its own first weights, drawn with the global generator, are replaced
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    draw = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5, generator=draw)
        head = model.get_output_embeddings()
        if head is not None:
            head.weight *= 8  # so that a soft cap of 30 or 50 shows
        model.eval()(input_ids=torch.arange(2, 8)[None], use_cache=False)
    return model


def small_config(config: Any, sizes: Sizes) -> Any:
    """The configuration with smaller sizes, of its text and of every other part."""
    settings = config.to_dict()
    settings.pop("quantization_config", None)
    parts = {name: getattr(config, name, None) for name in getattr(config, "sub_configs", {})}
    smaller = {name: _smaller_settings(part, sizes) for name, part in parts.items() if hasattr(part, "to_dict")}
    if config.get_text_config() is config:
        settings |= _smaller_settings(config, sizes)
    else:
        settings |= _special_tokens(settings, sizes)
    return type(config).from_dict({**settings, **smaller, "dtype": "float32"})


def _special_tokens(settings: Settings, sizes: Sizes) -> Settings:
    """The ids of the special tokens that a configuration names."""
    if sizes.tokens is not None:
        return {name: sizes.tokens[name] for name in _TOKENS if name in settings and name in sizes.tokens}
    return {name: _TOKEN for name in _TOKENS if settings.get(name) is not None}


def _smaller_settings(config: Any, sizes: Sizes) -> Settings:
    aliases: Mapping[str, str] = getattr(type(config), "attribute_map", {})
    settings = _Aliased(config.to_dict(), aliases)
    if sizes.vocabulary is not None:
        settings.set(_VOCABULARIES, sizes.vocabulary)
    if sizes.tokens is None:
        settings.set(_TOKENS, _TOKEN)
    else:
        settings.values |= _special_tokens(settings.values, sizes)
    settings.limit(_EXPERT_COUNTS, _EXPERTS)
    settings.limit(_CHOSEN_EXPERTS, 2)
    settings.set(_EXPERT_GROUPS, 1)
    settings.limit(("sliding_window",), sizes.window)
    if sizes.narrow:
        _make_narrow(settings, sizes.head)
    return _fewer_layers(settings.values, aliases.get(_DEPTH, _DEPTH))


class _Aliased:
    """Settings under the common names of transformers, of which a configuration may have others."""

    def __init__(self, values: Settings, aliases: Mapping[str, str]) -> None:
        self.values, self._aliases = values, aliases

    def number(self, name: str) -> int:
        """A number that is there; 0 for anything else."""
        value = self.values.get(self._aliases.get(name, name))
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    def set(self, names: Sequence[str], value: int) -> None:
        """Set the numbers, or lists of numbers, of these names that are there and not 0."""
        for name in (self._aliases.get(name, name) for name in names):
            stated = self.values.get(name)
            if isinstance(stated, list) and all(isinstance(one, int) for one in stated):
                self.values[name] = [value] * len(stated)
            elif self.number(name):
                self.values[name] = value

    def limit(self, names: Sequence[str], most: int) -> None:
        """Set the numbers of these names to at most `most`."""
        for name in names:
            self.set((name,), min(self.number(name), most))


def _make_narrow(settings: _Aliased, most: int | None) -> None:
    """A few heads of the width that they have, or of `most` dimensions, and small inner layers."""
    heads, keys, width = (settings.number(name) for name in (_HEADS_NAME, _KEYS_NAME, _WIDTH_NAME))
    if heads and width:
        few = min(heads, _HEADS)
        head = settings.number("head_dim") or width // heads
        head = head if most is None else min(head, most)
        width = few * head
        settings.set(("head_dim",), head)
        settings.set((_HEADS_NAME,), few)
        settings.set((_KEYS_NAME,), few if keys == heads else min(keys, 2))
    else:
        width = min(width, _WIDTH)
    settings.set((_WIDTH_NAME,), width)
    settings.set(_INNER_SIZES, _INNER)
    for count, size, factor in _STATE_HEADS:
        if settings.number(size):
            settings.set((count,), settings.number(factor) * width // settings.number(size))


def _fewer_layers(settings: Settings, depth: str) -> Settings:
    """The settings with two layers, or as many as show every kind; what is stated layer by layer is cut too."""
    layers = settings.get(depth)
    if not isinstance(layers, int):
        return settings
    by_layer = {name: value for name, value in settings.items() if isinstance(value, list) and len(value) == layers}
    patterns = (_pattern_length(value) for value in by_layer.values())
    kept = min(layers, max([_LAYERS, *(length for length in patterns if length <= _LONGEST_PATTERN)]))
    numbered = {name: value for name, value in settings.items() if isinstance(value, dict) and _is_by_number(value)}
    return {
        **settings,
        depth: kept,
        **{name: value[:kept] for name, value in by_layer.items()},
        **{name: {key: of for key, of in value.items() if int(key) < kept} for name, value in numbered.items()},
    }


def _pattern_length(by_layer: list[Any]) -> int:
    """How many of the first layers show every kind."""
    kinds = [str(value) for value in by_layer]
    return max(kinds.index(kind) for kind in set(kinds)) + 1


def _is_by_number(value: dict[Any, Any]) -> bool:
    """Whether the keys are numbers of layers."""
    return bool(value) and all(str(key).isdecimal() for key in value)
