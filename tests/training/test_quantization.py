"""QLoRA with the real bitsandbytes, whose kernels a CPU has too; recipes are offered it on GPUs alone."""

import datasets
import numpy as np
import pytest
from conversation_loss import BATCH, SEED, TRAINER, ignore, make_rows

from deita_train.data.rendering import load_tokenizer
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model
from deita_train.training.trainer_run import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("quantization")
    make_rows(made)
    shape = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "context_length": 64}
    make_model(load_tokenizer(str(made / "base")), **shape, seed=3, folder=made / "base")
    return made


def train_adapter(folder, quantization):
    fields = {**TRAINER, "optim": "adamw_torch", "learning_rate": 1e-2, "num_train_epochs": 4}
    adapter = {"r": 4, "target_modules": "all-linear"}
    settings = TrainingSettings(fields, BATCH, SEED, 1, "NO", True, peft=adapter, quantization=quantization)
    rows, base = datasets.load_from_disk(str(folder / "rows")), str(folder / "base")
    out = folder / str(quantization)
    outcome = train(base, load_tokenizer(base), rows, settings, out / "checkpoints", out / "model", ignore, ignore)
    assert (out / "model" / "adapter_model.safetensors").exists()
    return [entry["loss"] for entry in outcome.history]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_adapter_learns_on_a_quantized_base_as_on_a_whole_one(folder, quantization):
    pytest.importorskip("bitsandbytes")
    whole, quantized = train_adapter(folder, None), train_adapter(folder, quantization)
    assert whole[-1] < whole[0] - 0.1
    difference = np.abs(np.array(quantized) - whole)
    assert 0 < difference.max() < 0.05
