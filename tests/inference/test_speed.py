import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from deita_train.cost.gpus import named_peak
from deita_train.inference.speed import Speed, flops_per_token, peak_flops, speed_metrics

TINY = {
    "vocab_size": 50,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def speed(rows, tokens, seconds, *, flops=2 * 7_000_000_000, peak=989e12):
    made = Speed(flops, peak)
    made.add(rows, tokens, seconds)
    return made


def test_rates_by_hand():
    made = speed(2, 30_000, 1.5)
    made.add(1, 10_000, 0.5)
    assert (made.rows, made.tokens_per_second) == (3, 20_000)
    # 2 x 7e9 x 20,000 / 989e12
    assert made.mfu == pytest.approx(0.283114, rel=1e-5)
    assert str(made) == "20,000 tokens/s, 28% of the GPU's peak"


def test_nothing_is_known_before_the_first_batch():
    assert (Speed(1, 1.0).tokens_per_second, Speed(1, 1.0).mfu) == (None, None)
    assert str(Speed(1, 1.0)) == "0 tokens/s"


@pytest.mark.parametrize("unknown", [{"flops": None}, {"peak": None}])
def test_without_a_peak_or_a_size_there_are_tokens_alone(unknown):
    made = speed(1, 500, 2.0, **unknown)
    assert made.mfu is None
    assert str(made) == "250 tokens/s"


def test_ranks_together_take_the_seconds_of_the_longest():
    metrics = speed_metrics([speed(5, 30_000, 1.5), speed(9, 50_000, 2.0)])
    # 80,000 tokens in 2 seconds on two GPUs: 40,000 a second, 20,000 on each.
    assert metrics == {"seconds_computing": 2.0, "tokens_per_second": 40_000, "mfu": pytest.approx(0.283114, rel=1e-5)}


def test_a_run_that_had_nothing_left_to_compute_has_no_speed():
    assert speed_metrics([Speed(2, 1.0)]) == {"seconds_computing": 0.0, "tokens_per_second": None, "mfu": None}


def test_flops_by_hand():
    # A layer: four 8 x 8 of attention, three 8 x 12, two norms of 8; at the end a norm; twice each.
    per_layer = 4 * 64 + 3 * 96 + 2 * 8
    model = LlamaForCausalLM(LlamaConfig(**TINY))
    assert flops_per_token(model) == flops_per_token(model.base_model) == 2 * (2 * per_layer + 8)


def test_a_mixture_of_experts_has_no_known_flops():
    assert flops_per_token(MixtralForCausalLM(MixtralConfig(**TINY, num_local_experts=2))) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_peaks_by_name(name, peak):
    assert named_peak(name) == peak


def test_a_peak_is_that_of_bfloat16_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert peak_flops(torch.device("cuda", 1), torch.bfloat16) == 989e12
    assert peak_flops(torch.device("cuda", 1), torch.float32) is None
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None
