import math

import pytest
import torch
from transformers import (
    Cohere2Config,
    FalconH1Config,
    Gemma2Config,
    Gemma3Config,
    GraniteConfig,
    HyperCLOVAXConfig,
    LlamaConfig,
    MptConfig,
)

from deita_train.inference.logit_rule import LogitRule


@pytest.mark.parametrize(
    ("config", "scale", "cap"),
    [
        (LlamaConfig(), 1.0, None),
        (Cohere2Config(logit_scale=0.25), 0.25, None),
        (GraniteConfig(logits_scaling=8.0), 0.125, None),
        (HyperCLOVAXConfig(logits_scaling=8.0), 8.0, None),
        (FalconH1Config(lm_head_multiplier=0.5), 0.5, None),
        (Gemma2Config(final_logit_softcapping=30.0), 1.0, 30.0),
        (Gemma2Config(final_logit_softcapping=None), 1.0, None),
        # Of a model that reads pictures too, the configuration of its text says it.
        (Gemma3Config(text_config={"final_logit_softcapping": 7.0}), 1.0, 7.0),
        # Published with a null: it scales nothing.
        (MptConfig(logit_scale=None), 1.0, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_rule_of_a_configuration(config, scale, cap):
    assert LogitRule.of(config) == LogitRule(scale, cap)


def test_the_logits_by_hand():
    product = torch.tensor([[-8.0, 0.0, 3.0]], dtype=torch.bfloat16)
    assert LogitRule()(product).tolist() == [[-8.0, 0.0, 3.0]]
    assert LogitRule(scale=0.5)(product).tolist() == [[-4.0, 0.0, 1.5]]
    capped = LogitRule(scale=0.5, cap=2.0)(product)
    assert capped.dtype == torch.float32
    assert capped[0].tolist() == pytest.approx([2 * math.tanh(-2.0), 0.0, 2 * math.tanh(0.75)])
