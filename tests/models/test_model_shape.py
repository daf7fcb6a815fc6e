import json

import pytest
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    Qwen2Config,
)

from deita_train.models.model_shape import automatic_batch_tokens, context_length, load_config, num_weights

GIB = 2**30
# LLaMA-7B: embedding and head of 32,000 x 4,096 each; 32 layers of four 4,096 x 4,096, three 4,096 x 11,008 and two
# norms; a last norm.
WEIGHTS_7B = 2 * 32_000 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096) + 4096
# Two bytes for 2D + 6Q + 3K + 3I, eight for D, three for each of 2,048 positions in the mask.
TOKEN_7B = 2 * (2 * 4096 + 6 * 4096 + 3 * 4096 + 3 * 11_008) + 8 * 4096 + 3 * 2048


def test_weights_of_a_7b_by_hand():
    assert num_weights(LlamaConfig()) == WEIGHTS_7B == 6_738_415_616


@pytest.mark.parametrize(
    ("gib", "tokens"),
    [
        # (139 GiB - 13,476,831,232) / 2 / 195,072 = 348,008, above the upper bound.
        (139, 262_144),
        # (25,769,803,776 - 13,476,831,232) / 2 / 195,072 = 31,508.8
        (24, 31_508),
        # (17,179,869,184 - 13,476,831,232) / 2 / 195,072 = 9,491.4
        (16, 9_491),
        # The weights alone do not fit: loading will say so.
        (8, 4_096),
    ],
)
def test_batch_tokens_of_a_7b_by_hand(gib, tokens):
    assert TOKEN_7B == 195_072
    assert automatic_batch_tokens(LlamaConfig(), "bfloat16", gib * GIB, 2048) == tokens


def test_float32_takes_twice_the_memory():
    # Four bytes in place of two, five for each position of the mask: 355,328 a token, and 26,953,662,464 of weights.
    tokens = (64 * GIB - 4 * WEIGHTS_7B) // 2 // 355_328
    assert automatic_batch_tokens(LlamaConfig(), "float32", 64 * GIB, 2048) == tokens == 58_770


def test_shared_keys_and_several_experts():
    # Mistral-7B: K = 8 x 128 and I = 14,336. A token: 2 x (8,192 + 24,576 + 3,072 + 43,008) + 32,768 + 3 x 100.
    weights = 2 * 32_000 * 4096 + 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096) + 4096
    assert num_weights(MistralConfig()) == weights
    expected = (24 * GIB - 2 * weights) // 2 // 190_764
    assert automatic_batch_tokens(MistralConfig(), "bfloat16", 24 * GIB, 100) == expected
    small = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 1, "vocab_size": 100}
    experts = MixtralConfig(**small, num_attention_heads=8, num_key_value_heads=8, num_experts_per_tok=2)
    per_token = 2 * (1024 + 3072 + 1536 + 3 * 2048) + 4096 + 3 * 10
    assert (
        automatic_batch_tokens(experts, "bfloat16", 2 * GIB, 10)
        == (2 * GIB - 2 * num_weights(experts)) // 2 // per_token
    )


def test_context_lengths(tmp_path):
    assert context_length(LlamaConfig(max_position_embeddings=77)) == 77
    assert context_length(GPT2Config(n_positions=55)) == 55
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral", "max_position_embeddings": 33}))
    assert context_length(load_config(tmp_path)) == 33


def test_a_context_that_is_stretched_reaches_as_far_as_the_configuration_says():
    """YaRN's usual form leaves the length before it, Llama 3's and Phi's have the length after it, Gemma's by layer."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100, "rope_theta": 1e4}
    assert context_length(Qwen2Config(max_position_embeddings=120, rope_parameters=yarn)) == 400
    llama3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 100, "rope_theta": 1e4}
    llama3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert context_length(LlamaConfig(max_position_embeddings=1600, rope_parameters=llama3)) == 1600
    linear = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}
    assert context_length(LlamaConfig(max_position_embeddings=1600, rope_parameters=linear)) == 1600
    by_layer = {"full_attention": yarn, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    assert context_length(Gemma3TextConfig(max_position_embeddings=120, rope_parameters=by_layer)) == 400
    assert context_length(MptConfig(max_seq_len=70)) == 70
    assert context_length(MambaConfig()) is None


def test_the_shape_of_an_adapter_is_that_of_its_base(tmp_path):
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 44}))
    config = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    assert context_length(load_config(tmp_path / "adapter")) == 44
