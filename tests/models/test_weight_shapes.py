import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.models.weight_shapes import count_weights, shapes_of_config

SMALL = {
    "vocab_size": 310, "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 6,
}  # fmt: skip
CONFIGS = [
    {"model_type": "llama"},
    {"model_type": "llama", "num_key_value_heads": 2, "tie_word_embeddings": True},
    {"model_type": "llama", "head_dim": 4, "attention_bias": True, "mlp_bias": True},
    {"model_type": "mistral", "num_key_value_heads": 3},
    {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True},
]


@pytest.mark.parametrize("changes", CONFIGS)
def test_the_weights_are_those_that_transformers_makes(changes):
    config = {**SMALL, "num_key_value_heads": 6, "tie_word_embeddings": False, **changes}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    shapes = shapes_of_config(config)
    assert shapes == expected
    assert count_weights(shapes) == sum(weight.numel() for weight in model.parameters())


def test_another_architecture_and_a_missing_number_are_not_guessed():
    assert shapes_of_config({**SMALL, "model_type": "gpt_neox"}) is None
    assert shapes_of_config({"model_type": "llama", "hidden_size": 48}) is None
    assert shapes_of_config({}) is None
