"""The memory of a training: the sums by hand, and against the bytes that real steps of miniatures hold."""

import sys
from dataclasses import replace

import pytest
from step_memory import BUCKET, Step, make_model, measured_bytes

from deita_train.cost.shape import sizes_of
from deita_train.cost.training_memory import Setup, kept_bytes, layer_bytes, training_memory

_LLAMA = {
    "model_type": "llama", "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 1024, "tie_word_embeddings": False,
}  # fmt: skip
_GROUPED = {**_LLAMA, "num_key_value_heads": 2, "head_dim": 64, "tie_word_embeddings": True}
# Without dropout, whose masks only GPT-2 would have.
_NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
MODELS = {
    "llama": _LLAMA,
    "qwen3": {**_GROUPED, "model_type": "qwen3"},
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 4096, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 1024,
        "bos_token_id": 0, "eos_token_id": 1, **_NO_DROPOUT,
    },
    "gemma3": {
        **_GROUPED, "model_type": "gemma3_text", "sliding_window": 64,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
}  # fmt: skip
_LORA = {"r": 8, "target_modules": "all-linear"}
_LORA_ABOVE = {"r": 8, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"], "layers_to_transform": [2, 3]}
_LORA_GPT2 = {"r": 8, "target_modules": ["c_attn", "c_proj", "c_fc"]}


def setup(step, sizes):
    """A measured step in the numbers of the arithmetic."""
    return Setup(
        sharding={"cpu": "none"}.get(step.launch, step.launch),
        ranks=step.ranks,
        weight_bytes=4,
        half=step.half,
        moment_bytes=8,
        micro_batch=step.micro,
        length=step.length,
        checkpointing=step.checkpointing,
        accumulates=step.accumulation > 1,
        adapter=None if step.peft is None else sizes.adapter(step.peft),
        frozen_layers=0 if step.peft is None else sizes.frozen_layers(step.peft),
        on_cpu=True,
        bucket=BUCKET,
    )


QUICK = [("llama", Step(peft=_LORA)), ("qwen3", Step("ddp"))]
LONG = [
    *(("llama", Step(launch)) for launch in ("cpu", "ddp", "zero2", "zero3")),
    *(("qwen3", Step(launch)) for launch in ("zero2", "zero3")),
    *(("gpt2", Step(launch)) for launch in ("ddp", "zero2", "zero3")),
    ("qwen3", Step(peft=_LORA)),
    ("gpt2", Step(peft=_LORA_GPT2)),
    ("llama", Step(peft=_LORA_ABOVE)),
    ("gemma3", Step()),
    ("llama", Step(checkpointing=True, length=256)),
    ("llama", Step(accumulation=1)),
    ("llama", Step("ddp", accumulation=1)),
    ("llama", Step("zero2", accumulation=1)),
    ("llama", Step(peft=_LORA, checkpointing=True)),
    ("llama", Step("zero3", peft=_LORA)),
    ("llama", Step(half=True)),
    ("llama", Step("zero2", half=True)),
    ("llama", Step("zero3", half=True)),
]


def _words(step):
    """What tells a step from the others."""
    told = [name for name in ("half", "checkpointing") if getattr(step, name)]
    return "-".join([step.launch, *told, *(["lora"] if step.peft else []), str(step.accumulation)])


@pytest.mark.parametrize(
    ("name", "step"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.faults) for case in LONG)],
    ids=lambda value: value if isinstance(value, str) else _words(value),
)
def test_a_step_holds_what_is_expected_of_it(processes, tmp_path, name, step):
    make_model(tmp_path, MODELS[name])
    sizes = sizes_of(MODELS[name])
    found = measured_bytes(processes, tmp_path, step)
    expected = training_memory(sizes, setup(step, sizes)).total
    sys.stdout.write(f"{name}, {_words(step)}: {found / 1e6:.1f} MB held, {expected / 1e6:.1f} MB expected\n")
    assert found > 5e7  # some dozen megabytes of state
    assert expected == pytest.approx(found, rel=0.15), f"{expected / found - 1:+.1%}"


SIZES = sizes_of(_LLAMA)
N = 2 * 4096 * 256 + 4 * (4 * 256**2 + 3 * 256 * 768 + 2 * 256) + 256
PLAIN = Setup("none", 1, 4, half=False, moment_bytes=8, micro_batch=1, length=10, checkpointing=False)


def test_the_state_by_hand():
    assert SIZES.weights == N
    of = training_memory(SIZES, PLAIN)
    assert (of.weights, of.gradients, of.optimizer) == (4 * N, 4 * N, 8 * N)
    ddp = training_memory(SIZES, replace(PLAIN, sharding="ddp", ranks=4))
    assert (ddp.weights, ddp.gradients, ddp.optimizer) == (4 * N, 8 * N, 8 * N)
    # bfloat16 weights whole, a quarter of gradients, and of float32 weights with two moments.
    zero2 = training_memory(SIZES, replace(PLAIN, sharding="zero2", ranks=4, half=True))
    assert (zero2.weights, zero2.gradients, zero2.optimizer) == (2 * N, 2 * N // 4, 12 * N // 4)
    zero3 = training_memory(SIZES, replace(PLAIN, sharding="zero3", ranks=4, half=True))
    assert (zero3.weights, zero3.optimizer) == (2 * N + 2 * N // 4, 12 * N // 4)
    offloaded = replace(PLAIN, sharding="zero3", ranks=4, half=True, offloads_optimizer=True, offloads_weights=True)
    of = training_memory(SIZES, offloaded)
    assert (of.weights, of.gradients, of.optimizer) == (2 * N, 0, 0)


def test_what_fsdp_gathers_by_hand():
    """Two layers and the root (table, head and last norm are the rest) in bfloat16, beside a quarter of everything."""
    layer = 4 * 256**2 + 3 * 256 * 768 + 2 * 256
    gathered = 2 * (2 * layer + 2 * 4096 * 256)
    fsdp = replace(PLAIN, sharding="fsdp", ranks=4, half=True)
    of = training_memory(SIZES, fsdp)
    assert of.weights == pytest.approx(4 * N // 4 + gathered, rel=1e-3)
    assert (of.gradients, of.optimizer) == (4 * N // 4, 8 * N // 4)
    of = training_memory(SIZES, replace(fsdp, offloads_weights=True))
    assert (of.weights, of.gradients, of.optimizer) == (pytest.approx(gathered, rel=1e-3), 0, 0)


def test_an_adapters_state_by_hand():
    adapter = SIZES.adapter(_LORA)
    assert adapter == 4 * 8 * (4 * 512 + 3 * 1024)
    of = training_memory(SIZES, replace(PLAIN, adapter=adapter, base_bytes=2.0))
    assert (of.weights, of.gradients, of.optimizer) == (2 * N + 4 * adapter, 4 * adapter, 8 * adapter)


def test_activations_by_hand():
    """Width 256 for the stream, queries and keys; 768 in the MLP; four layers, ten tokens."""
    assert layer_bytes(SIZES, PLAIN) == 4 * (10 * 256 + 4 * 768)
    assert kept_bytes(SIZES, PLAIN) == 10 * (4 * 4 * (10 * 256 + 4 * 768) + 6 * 4 * 256)
    assert kept_bytes(SIZES, replace(PLAIN, frozen_layers=3)) == 10 * (4 * (10 * 256 + 4 * 768) + 6 * 4 * 256)
    assert kept_bytes(SIZES, replace(PLAIN, checkpointing=True, frozen_layers=3)) == 10 * (4 * 4 * 256 + 6 * 4 * 256)
    assert kept_bytes(SIZES, replace(PLAIN, checkpointing=True)) == 10 * (4 * 4 * 256 + 6 * 4 * 256)
    # As training/fitting.py has them for models whose keys are as wide as their queries.
    assert layer_bytes(SIZES, replace(PLAIN, weight_bytes=2, half=True)) == 24 * 256 + 8 * 768
    assert layer_bytes(SIZES, replace(PLAIN, half=True)) == 34 * 256 + 8 * 768


def test_more_ranks_and_recomputed_activations_never_take_more():
    long = replace(PLAIN, length=4096, half=True)
    for sharding in ("fsdp", "zero1", "zero2", "zero3"):
        totals = [
            training_memory(SIZES, replace(long, sharding=sharding, ranks=ranks, bucket=1)).total for ranks in (1, 2, 4)
        ]
        assert totals == sorted(totals, reverse=True)
    assert training_memory(SIZES, replace(long, checkpointing=True)).total < training_memory(SIZES, long).total
