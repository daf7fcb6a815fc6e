import pytest
import torch
from transformers import (
    DeepseekV3Config,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    SmolLM3Config,
)

from deita_train.models.tiny_copy import VOCABULARY, NotCopied, tiny_copy


def test_a_copy_of_a_70b_has_its_classes_and_settings_and_few_weights():
    stated = LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
        vocab_size=128_256, rms_norm_eps=1e-5, bos_token_id=128_000, eos_token_id=[128_001, 128_009],
    )  # fmt: skip
    model = tiny_copy(stated)
    config = model.config
    assert type(model).__name__ == "LlamaForCausalLM" and model.dtype == torch.float32 and not model.training
    # Four heads as wide as the model's own 8192 / 64 = 128.
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (2, 4, 2)
    assert (config.hidden_size, config.head_dim, config.vocab_size) == (512, 128, VOCABULARY)
    assert config.rms_norm_eps == 1e-5
    assert sum(weight.numel() for weight in model.parameters()) < 5e6
    assert stated.num_hidden_layers == 80


def test_every_kind_of_layer_is_kept():
    # Five with a sliding window, then one without.
    assert tiny_copy(Gemma3TextConfig(num_hidden_layers=18)).config.layer_types == ["sliding_attention"] * 5 + [
        "full_attention"
    ]
    config = tiny_copy(SmolLM3Config(num_hidden_layers=8, no_rope_layers=[1, 1, 1, 0, 1, 1, 1, 0])).config
    assert config.no_rope_layers == [1, 1, 1, 0] and config.num_hidden_layers == 4


def test_what_is_done_to_logits_and_windows_stays():
    assert tiny_copy(GraniteConfig(logits_scaling=8.0)).config.logits_scaling == 8.0
    config = tiny_copy(Gemma2Config(sliding_window=4096)).config
    assert config.final_logit_softcapping == 30.0 and config.sliding_window == 4


def test_logits_are_large_enough_for_a_cap_to_show():
    ids = torch.arange(2, 9)[None]
    capped, plain = (
        tiny_copy(Gemma2Config(final_logit_softcapping=cap))(input_ids=ids).logits.detach() for cap in (30.0, None)
    )
    assert float((capped - plain).abs().max()) > 1


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(hidden_size=256, num_attention_heads=4, num_key_value_heads=4, num_local_experts=64),
        DeepseekV3Config(hidden_size=256, num_attention_heads=4, num_key_value_heads=4),
        Phi3Config(hidden_size=256, num_attention_heads=4, num_key_value_heads=4, pad_token_id=32_000),
        GPT2Config(),
    ],
    ids=lambda config: config.model_type,
)
def test_the_same_copy_each_time(config):
    ids = torch.arange(2, 9)[None]
    first, second = (tiny_copy(config)(input_ids=ids).logits for _ in range(2))
    assert torch.equal(first, second) and first.shape == (1, 7, VOCABULARY)


def test_a_model_that_reads_pictures_too():
    text = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    vision = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 6, "intermediate_size": 64}
    model = tiny_copy(Gemma3Config(text_config=text, vision_config=vision))
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    assert model.config.vision_config.num_hidden_layers == 2


def test_a_configuration_that_gives_no_model():
    with pytest.raises(NotCopied, match="KeyError: 'no such function'"):
        tiny_copy(LlamaConfig(hidden_act="no such function"))
