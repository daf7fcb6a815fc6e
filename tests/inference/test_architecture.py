"""What a tiny copy shows of an architecture: how it computes its logits, and whether packed rows stay separate."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.inference.architecture import separates_packed, try_architecture
from deita_train.models.tiny_copy import tiny_copy

SHAPE = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 8,
    "max_position_embeddings": 512, "bos_token_id": 298, "eos_token_id": 299, "pad_token_id": 297,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SEPARATE = {
    "llama": GROUPED, "mistral": GROUPED | {"sliding_window": 64}, "qwen2": {"num_key_value_heads": 2},
    "qwen3": GROUPED, "gemma2": GROUPED | {"sliding_window": 64}, "gemma3_text": GROUPED | {"sliding_window": 64},
    "phi3": {"num_key_value_heads": 2}, "glm4": GROUPED, "granite": {"num_key_value_heads": 2, "logits_scaling": 8.0},
    "cohere2": GROUPED, "olmo2": {"num_key_value_heads": 2}, "smollm3": {"num_key_value_heads": 2},
    "mixtral": GROUPED | EXPERTS, "qwen3_moe": GROUPED | EXPERTS, "gpt2": {}, "nanochat": {"num_key_value_heads": 2},
}  # fmt: skip
LEAKING = {
    "bloom": {}, "mpt": {}, "falcon": {}, "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64}, "mamba": {},
    "gpt_oss": GROUPED | EXPERTS, "jamba": {"num_key_value_heads": 2, "mamba_d_state": 4, "use_mamba_kernels": False},
}  # fmt: skip


def config(name, changes):
    return AutoConfig.for_model(name, **SHAPE, **changes)


@pytest.mark.parametrize("name", SEPARATE)
def test_architectures_that_keep_packed_conversations_apart(name):
    found = try_architecture(config(name, SEPARATE[name]))
    assert (found.untried, found.logits_problem, found.separates_packed) == (None, None, True)


@pytest.mark.parametrize("name", LEAKING)
def test_architectures_in_which_packed_conversations_see_each_other(name):
    found = try_architecture(config(name, LEAKING[name]))
    assert (found.untried, found.logits_problem, found.separates_packed) == (None, None, False)


def test_a_model_is_tried_once():
    first = try_architecture(config("llama", GROUPED))
    assert try_architecture(config("llama", GROUPED)) is first
    assert try_architecture(config("llama", {**GROUPED, "head_dim": 16})) is not first


def test_a_cap_that_the_configuration_calls_otherwise_is_a_problem():
    shape = {**SHAPE, "num_key_value_heads": 1, "lru_width": 64, "attention_window_size": 16}
    found = try_architecture(AutoConfig.for_model("recurrent_gemma", **shape))
    assert found.name == "RecurrentGemmaForCausalLM"
    assert found.logits_problem.startswith("RecurrentGemmaForCausalLM does something to its logits")
    calm = AutoConfig.for_model("recurrent_gemma", **shape, logits_soft_cap=1e6)
    assert try_architecture(calm).logits_problem is None


def test_what_cannot_be_copied_is_told_with_the_reason():
    broken = config("llama", {**GROUPED, "hidden_act": "no such function"})
    found = try_architecture(broken)
    assert found.name == "llama" and "no such function" in found.untried


def test_a_leak_is_seen_at_any_width():
    """Of a whole model too, not only of a copy: here the first row's tokens are all that differs."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config("bloom", {})).eval()
    assert not separates_packed(model)
    assert separates_packed(AutoModelForCausalLM.from_config(config("llama", GROUPED)).eval())


def test_trying_leaves_the_random_state_alone():
    torch.manual_seed(4)
    before = torch.get_rng_state()
    tiny_copy(config("llama", GROUPED))
    assert torch.equal(torch.get_rng_state(), before)
