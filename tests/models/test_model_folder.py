import json

import pytest
import torch
from safetensors.torch import save_file

from deita_train.errors import UserError
from deita_train.models.model_folder import check_model_folder


@pytest.fixture
def folder(tmp_path):
    """What is there of a model when it is whole."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"x": torch.zeros(100)}, tmp_path / "model.safetensors")
    return tmp_path


def refusal(folder):
    with pytest.raises(UserError) as caught:
        check_model_folder(folder)
    return str(caught.value)


def test_a_whole_model_passes(folder):
    check_model_folder(folder)


def test_weights_of_the_old_kind_pass(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    check_model_folder(folder)


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    assert refusal(folder).startswith(f"{folder} holds no weights (model.safetensors); ")


def test_weights_that_are_cut_off(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert refusal(folder).startswith(f"{file} is not a complete safetensors file (")


@pytest.mark.parametrize("config", ["{", "{}", '{"model_type": "nonesuch"}'])
def test_a_configuration_that_transformers_cannot_read(folder, config):
    (folder / "config.json").write_text(config)
    assert refusal(folder).startswith(f"{folder / 'config.json'}: transformers cannot read it (")
