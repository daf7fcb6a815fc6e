"""What a micro-batch takes: the formulas by hand, and counted in transformers' own layers."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from deita_train.training.fitting import Precision, layer_bytes, sequences_that_fit, state_bytes
from deita_train.training.memory import ModelShape, free_bytes

FLOAT32, MIXED, BFLOAT16 = Precision(4, False), Precision(4, True), Precision(2, False)


def config(width=64, mlp=160, layers=2):
    return LlamaConfig(
        vocab_size=100, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, use_cache=False,
    )  # fmt: skip


def saved_bytes(layers, precision, checkpointing):
    """Bytes that autograd keeps for each token, without the weights and their bfloat16 copies."""
    model = LlamaForCausalLM(config(layers=layers)).to(torch.float32 if precision.weight == 4 else torch.bfloat16)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    tokens, sizes, kept = 256, {}, []
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    shapes = {tuple(sorted(weight.shape)) for weight in model.parameters()}  # also of their copies, and transposed

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in own and tuple(sorted(tensor.shape)) not in shapes:
            sizes[place] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
        return tensor

    ids = torch.randint(0, 100, (1, tokens))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision.autocast):
        model.model(input_ids=ids)
    return sum(sizes.values()) / tokens


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", [FLOAT32, MIXED, BFLOAT16])
def test_a_layer_keeps_what_is_counted_in_transformers(precision):
    counted = (saved_bytes(4, precision, False) - saved_bytes(2, precision, False)) / 2
    assert layer_bytes(config(), precision) == pytest.approx(counted, rel=0.02)


@pytest.mark.filterwarnings("ignore")
def test_with_checkpointing_a_layer_keeps_one_vector():
    assert (saved_bytes(4, FLOAT32, True) - saved_bytes(2, FLOAT32, True)) / 2 == 4 * 64


@pytest.mark.parametrize(
    ("weights", "precision", "sharding", "expected"),
    [
        ((100, 100), FLOAT32, ("NO", 1), 1600),
        ((100, 100), MIXED, ("MULTI_GPU", 8), 1800),  # nothing is divided; 200 for the copies of the weights
        ((100, 100), BFLOAT16, ("NO", 1), 800),
        ((100, 8), BFLOAT16, ("NO", 1), 248),  # an adapter: 200 and three times 16
        ((100, 100), BFLOAT16, ("FSDP", 4), 200),
        ((100, 100), BFLOAT16, ("ZERO3", 4), 200),
        ((100, 100), BFLOAT16, ("ZERO2", 4), 350),
        ((100, 100), BFLOAT16, ("ZERO1", 4), 500),  # weights and gradients whole, a quarter of 400 for the moments
        ((100, 8), MIXED, ("ZERO1", 4), 400 + 32 + 16 + 200),
    ],
)
def test_what_a_rank_keeps_by_hand(weights, precision, sharding, expected):
    assert state_bytes(ModelShape(None, *weights), precision, *sharding) == expected


def test_what_fits_by_hand():
    """D 64, I 160, 2 layers: a layer keeps 40 x 64 + 16 x 160 = 5,120 of a token in float32."""
    shape = ModelShape(config(), 100, 100)
    common = {"sharding": ("NO", 1), "longest": 10}
    # 0.8 of the free bytes hold 1,600 of weights and their like, and four sequences of ten tokens.
    free = (1600 + 4 * 10 * 3 * 5120) / 0.8
    assert sequences_that_fit(shape, FLOAT32, checkpointing=False, free_bytes=free + 9, **common) == 4
    assert sequences_that_fit(shape, FLOAT32, checkpointing=False, free_bytes=free - 9, **common) == 3
    # Two layers' vectors of 256, and one layer twice.
    free = (1600 + 7 * 10 * (2 * 256 + 2 * 5120)) / 0.8
    assert sequences_that_fit(shape, FLOAT32, checkpointing=True, free_bytes=free + 9, **common) == 7
    assert sequences_that_fit(shape, FLOAT32, checkpointing=True, free_bytes=0, **common) == 1


@pytest.mark.parametrize(
    ("model_init_kwargs", "bf16", "expected"),
    [
        (None, False, FLOAT32),
        ({}, True, MIXED),
        ({"dtype": "bfloat16"}, True, BFLOAT16),
        ({"attn_implementation": "sdpa"}, True, MIXED),
    ],
)
def test_the_precision_of_a_training(model_init_kwargs, bf16, expected):
    assert Precision.of(model_init_kwargs, is_half=bf16) == expected


def test_weights_are_counted_without_any(tmp_path):
    config().save_pretrained(tmp_path)
    # Two layers of q, k, v, o 16,384, MLP 30,720 and two norms 128; a norm 64; embedding and head 6,400 each.
    total = 2 * (16_384 + 30_720 + 128) + 64 + 12_800
    whole = ModelShape.of(tmp_path, None)
    assert (whole.weights, whole.trained, whole.config.hidden_size) == (total, total, 64)
    # Rank 2 on q alone: (64 + 64) x 2 for each of two layers.
    adapted = ModelShape.of(tmp_path, {"r": 2, "target_modules": ["q_proj"]})
    assert (adapted.weights, adapted.trained) == (total + 512, 512)


def test_free_memory_of_this_machine_is_shared_by_its_ranks(monkeypatch):
    alone = free_bytes(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert alone > 2**28
    assert free_bytes(torch.device("cpu")) == pytest.approx(alone / 4, rel=0.5)
