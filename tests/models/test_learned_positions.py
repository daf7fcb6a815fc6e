"""The table of models with learned positions, against the models themselves."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.models.model_limits import LEARNED_POSITIONS, learned_positions

CONTEXT = 24
SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
OWN = {
    "codegen": {"rotary_dim": 4}, "ctrl": {"dff": 48}, "gpt_neo": {"attention_types": [[["global"], 2]]},
    "gptj": {"rotary_dim": 4}, "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}  # fmt: skip
COMPUTED = (
    "bloom", "cohere2", "falcon", "gemma2", "gemma3_text", "glm4", "gpt_neox", "granite", "llama", "mamba", "mistral",
    "mixtral", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2", "xglm",
)  # fmt: skip


def model_of(name):
    grouped = {"num_key_value_heads": 2} if "num_key_value_heads" in AutoConfig.for_model(name).to_dict() else {}
    config = AutoConfig.for_model(name, **SHAPE, **grouped, **OWN.get(name, {}))
    for limit in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if limit in config.to_dict():
            setattr(config, limit, CONTEXT)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def read(model, tokens):
    with torch.inference_mode():
        return model(input_ids=torch.arange(tokens)[None] % 40, use_cache=False).logits.shape[1]


@pytest.mark.parametrize("name", sorted(LEARNED_POSITIONS))
def test_a_model_of_the_table_reads_its_positions_and_none_more(name):
    model = model_of(name)
    assert learned_positions(model.config.to_dict()) == CONTEXT
    assert read(model, CONTEXT) == CONTEXT
    with pytest.raises((IndexError, RuntimeError)):
        read(model, CONTEXT + 1)


@pytest.mark.parametrize("name", COMPUTED)
def test_a_model_that_is_not_in_the_table_reads_on(name):
    model = model_of(name)
    assert learned_positions(model.config.to_dict()) is None
    assert read(model, 2 * CONTEXT) == 2 * CONTEXT
