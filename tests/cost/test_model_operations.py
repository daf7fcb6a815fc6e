"""Operations of a token, against torch's own counter."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.cost.operations import pass_operations, training_operations
from deita_train.cost.shape import sizes_of

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
CONFIGS = [{"model_type": "llama", **SMALL}, {"model_type": "qwen3", **SMALL, "tie_word_embeddings": True}]
TOKENS = 16


def products(model, compute):
    """The operations of matrix products, without attention's own."""
    with FlopCounterMode(display=False) as counter:
        compute(model, torch.randint(0, 96, (1, TOKENS), generator=torch.Generator().manual_seed(1)))
    counts = counter.get_flop_counts()["Global"]
    return sum(count for name, count in counts.items() if "attention" not in str(name))


def model_of(config):
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="sdpa")


def biases_and_norms(model):
    """Weights that no matrix product multiplies; they are counted with the others, and are few."""
    return sum(weight.numel() for weight in model.parameters() if weight.dim() == 1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_a_pass_takes_two_for_each_weight(config):
    model, sizes = model_of(config), sizes_of(config)
    extra = 2 * TOKENS * biases_and_norms(model)
    with torch.no_grad():
        whole = products(model, lambda model, ids: model(ids))
        trunk = products(model, lambda model, ids: model.model(ids))
    assert TOKENS * pass_operations(sizes, head=True) == whole + extra
    assert TOKENS * pass_operations(sizes, head=False) == trunk + extra


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_a_training_takes_three_or_four_times_as_many(config, recomputes):
    model, sizes = model_of(config), sizes_of(config)
    model.train()
    if recomputes:
        model.gradient_checkpointing_enable()
    counted = products(model, lambda model, ids: model(ids).logits.sum().backward())
    extra = (8 if recomputes else 6) * TOKENS * biases_and_norms(model)
    expected = TOKENS * training_operations(sizes, None, recomputes=recomputes)
    # Of a layer that is computed once more, torch leaves out the last product, whose result nothing needs.
    left_out = 2 * TOKENS * 3 * 32 * 80 if recomputes else 0
    assert expected == pytest.approx(counted + extra + left_out, rel=1e-3)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_no_gradient_passes_the_layers_under_the_lowest_adapter(config):
    """Adapters of rank 2 in the last of three layers, against peft's own model."""
    sizes, targets = sizes_of(config), ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    fields = {"r": 2, "target_modules": targets, "layers_to_transform": 2}
    assert (sizes.adapter(fields), sizes.frozen_layers(fields)) == (2 * (2 * (64 + 32) + 2 * (32 + 32) + 3 * 112), 2)
    model = get_peft_model(model_of(config), LoraConfig(**fields))
    counted = products(model, lambda model, ids: model(ids).logits.sum().backward())
    expected = TOKENS * training_operations(sizes, sizes.adapter(fields), recomputes=False, frozen_layers=2)
    # Nothing needs the gradient of that layer's own input, which queries, keys and values would give.
    left_out = 2 * TOKENS * (32 * 64 + 2 * 32 * 32)
    assert expected == pytest.approx(counted + left_out, rel=0.02)


def test_an_adapter_by_hand():
    sizes = sizes_of(CONFIGS[0])
    base = sizes.trunk + sizes.head
    below = 2 * (2 * 32 * 64 + 2 * 32 * 32 + 3 * 32 * 80 + 2 * 32)  # queries, output, keys, values, MLP, norms
    assert training_operations(sizes, 100, recomputes=False, frozen_layers=2) == 4 * base + 600 - 2 * below
    assert training_operations(sizes, 100, recomputes=True, frozen_layers=2) == training_operations(
        sizes, 100, recomputes=True
    )
    assert training_operations(sizes, 100, recomputes=False) == 4 * base + 600
    assert training_operations(sizes, 100, recomputes=True) == 4 * base + 600 + 2 * (sizes.trunk + 100)
