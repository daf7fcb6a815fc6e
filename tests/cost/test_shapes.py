"""Shapes of models in the package's table: their weights against those published, and the families in transformers."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.cost.shape import sizes_of
from deita_train.models.known_models import KNOWN_MODELS, known_config
from deita_train.models.weight_shapes import count_weights, shapes_of_config

# As the models' pages on the Hub state them, from the headers of their safetensors files.
PUBLISHED = {
    "huggyllama/llama-7b": 6_738_415_616,
    "huggyllama/llama-13b": 13_015_864_320,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "allenai/OLMo-2-0425-1B": 1_484_916_736,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-3-270m": 268_098_176,
    "google/gemma-3-1b-pt": 999_885_952,
    "openai-community/gpt2": 124_439_808,
}
SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
FAMILIES = [
    *({"model_type": family, **SMALL} for family in ("llama", "mistral", "qwen3", "gemma2", "gemma3_text")),
    {"model_type": "qwen2", **{name: value for name, value in SMALL.items() if name != "head_dim"}},
    {"model_type": "olmo2", **{name: value for name, value in SMALL.items() if name != "head_dim"}},
    {"model_type": "qwen3", **SMALL, "tie_word_embeddings": True},
    {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40, "vocab_size": 96},
    {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "vocab_size": 96, "n_inner": 50},
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_known_model_has_as_many_weights_as_its_page_says(name):
    assert sizes_of(known_config(name)).weights == PUBLISHED[name]


def test_every_known_model_has_sizes():
    assert len(KNOWN_MODELS) > 30 and known_config("org/other") is None
    for name, config in ((name, known_config(name)) for name in KNOWN_MODELS):
        sizes = sizes_of(config)
        assert sizes.weights == sizes.trunk + sizes.tables + (0 if sizes.tied else sizes.head), name


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config["model_type"])
def test_the_shapes_are_those_of_transformers(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert shapes_of_config(config) == expected
    sizes = sizes_of(config)
    assert sizes.weights == count_weights(expected)
    head = model.get_output_embeddings().weight
    assert sizes.tied == (head is model.get_input_embeddings().weight) and sizes.head == head.numel()
    looked_up = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    assert sizes.tables == sum(weight.numel() for weight in looked_up)
    assert (sizes.hidden_size, sizes.num_hidden_layers) == (32, model.config.num_hidden_layers)


def test_a_family_that_is_not_modelled_has_no_sizes():
    assert sizes_of({"model_type": "mamba", **SMALL}) is None
