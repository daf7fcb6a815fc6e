"""What only a GPU can show: packed rows under its own kernels, a base in four bits, MFU."""

import datasets
import numpy as np
import pytest
import torch
from conversation_loss import BATCH, SEED, TRAINER, ignore, make_rows

from deita_train.data.rendering import load_tokenizer
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model
from deita_train.training.trainer_run import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
FIELDS = {**TRAINER, "optim": "adamw_torch", "learning_rate": 1e-2, "num_train_epochs": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("gpu")
    make_rows(made)
    # flex attention wants heads of at least 16 numbers.
    shape = {"hidden_size": 128, "num_layers": 2, "num_heads": 2, "context_length": 64}
    make_model(load_tokenizer(str(made / "base")), **shape, seed=3, folder=made / "base")
    return made


def trained(folder, name, **settings):
    how = TrainingSettings(FIELDS, BATCH, SEED, 1, "NO", False, **settings)
    rows, base, out = datasets.load_from_disk(str(folder / "rows")), str(folder / "base"), folder / name
    outcome = train(base, load_tokenizer(base), rows, how, out / "checkpoints", out / "model", ignore, ignore)
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
    adapter = {"peft": {"r": 4, "target_modules": "all-linear"}}
    _, whole = trained(folder, "whole", **adapter)
    _, quantized = trained(folder, quantization, quantization=quantization, **adapter)
    assert np.abs(quantized - whole).max() < 0.05
