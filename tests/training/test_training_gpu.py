"""What only a GPU can show: packed rows under its own kernels, a base in four bits, MFU."""

import numpy as np
import pytest
import torch
from conversation_loss import ADAPTER, LEARNING, make_rows, run, widen

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("gpu")
    make_rows(made)
    widen(made, 128)  # flex attention wants heads of at least 16 numbers
    return made


def trained(folder, name, **how):
    outcome = run(folder, name, "per_token", use_cpu=False, **how, **LEARNING)
    return outcome, np.array([entry["loss"] for entry in outcome.history])


def test_packed_rows_have_the_losses_of_padded_ones(folder):
    (_, padded), (_, packed) = trained(folder, "padded"), trained(folder, "packed", packing=True)
    np.testing.assert_allclose(packed, padded, atol=0.02)
    assert padded[-1] < padded[0] - 0.1


def test_memory_is_measured_and_mfu_where_the_gpu_is_known(folder):
    outcome, _ = trained(folder, "measured")
    assert 0 < outcome.rates["memory_gib"] < 10 and 0 <= outcome.rates["data_loading_share"] < 1
    assert 0 < outcome.rates.get("mfu", 0.5) < 1


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_adapter_on_a_quantized_base_learns_as_on_a_whole_one(folder, quantization):
    pytest.importorskip("bitsandbytes")
    _, whole = trained(folder, "whole", adapter={"peft": ADAPTER})
    _, quantized = trained(folder, quantization, adapter={"peft": ADAPTER, "quantization": quantization})
    assert np.abs(quantized - whole).max() < 0.05
