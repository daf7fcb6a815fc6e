"""Models with random weights, made on the device, and rows of random tokens."""

import random
from dataclasses import dataclass

import torch
from passes import random_model
from transformers import MistralConfig, MistralForCausalLM


@dataclass(frozen=True)
class Shape:
    """A Mistral's shape, by transformers' own names. A head has 128 numbers, as the kernels are tuned for."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int

    def config(self) -> MistralConfig:
        """With attention to everything before, as in Mistral-7B v0.2 and later."""
        return MistralConfig(**vars(self), sliding_window=None, max_position_embeddings=32_768)


MISTRAL_7B = Shape(4096, 32, 32, 8, 14336, 32000)
MEDIUM = Shape(1024, 8, 8, 2, 3584, 32000)
MINIATURE = Shape(64, 2, 4, 2, 128, 320)


def make_mistral(shape: Shape, device: torch.device, dtype: torch.dtype) -> MistralForCausalLM:
    """Random weights from a fixed seed, drawn on the device."""
    model = random_model(lambda: MistralForCausalLM(shape.config()), device.type, dtype)
    assert isinstance(model, MistralForCausalLM)
    return model


def random_ids(draw: random.Random, length: int, shape: Shape) -> list[int]:
    """Token ids of no meaning, without the special ones."""
    return draw.choices(range(3, shape.vocab_size), k=length)
