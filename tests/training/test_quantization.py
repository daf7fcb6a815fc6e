"""QLoRA with the real bitsandbytes, whose kernels a CPU has too; recipes are offered it on GPUs alone."""

import numpy as np
import pytest
from conversation_loss import ADAPTER, LEARNING, make_rows, run, widen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("quantization")
    make_rows(made)
    widen(made, 64)
    return made


def losses_of(folder, quantization):
    how = {"peft": ADAPTER, "quantization": quantization}
    outcome = run(folder, str(quantization), "per_token", adapter=how, **LEARNING)
    assert (folder / str(quantization) / "model" / "adapter_model.safetensors").exists()
    return [entry["loss"] for entry in outcome.history]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_adapter_learns_on_a_quantized_base_as_on_a_whole_one(folder, quantization):
    pytest.importorskip("bitsandbytes")
    whole, quantized = losses_of(folder, None), losses_of(folder, quantization)
    assert whole[-1] < whole[0] - 0.1
    difference = np.abs(np.array(quantized) - whole)
    assert 0 < difference.max() < 0.05
