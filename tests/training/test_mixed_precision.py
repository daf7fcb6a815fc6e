"""The precision of a training is what the recipe states, or what its device gives, whatever the environment says."""

import pytest
import torch
from conversation_loss import make_rows, run
from safetensors.torch import load_file

from deita_train.training.arguments import TrainingSettings, training_arguments
from deita_train.training.mixed_precision import precision_of

VARIABLE = "ACCELERATE_MIXED_PRECISION"
# What is stated, and what it means on a CPU and on a GPU.
STATED = [
    ({}, "no", "bf16"),
    ({"bf16": None}, "no", "bf16"),
    ({"bf16": False}, "no", "no"),
    ({"bf16": True}, "bf16", "bf16"),
    ({"fp16": True}, "fp16", "fp16"),
    ({"fp16": False}, "no", "bf16"),
    ({"bf16": False, "fp16": True}, "fp16", "fp16"),
]


@pytest.mark.parametrize(("trainer", "on_cpu", "on_gpu"), STATED)
def test_precision_by_hand(trainer, on_cpu, on_gpu):
    assert precision_of(trainer, use_cpu=True) == on_cpu
    assert precision_of(trainer, use_cpu=False) == on_gpu


@pytest.mark.parametrize("environment", [None, "no", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("trainer", "use_cpu"), [({}, True), ({"bf16": False}, True), ({"bf16": False}, False), ({"fp16": True}, False)]
)
def test_the_arguments_have_it_and_not_that_of_the_environment(monkeypatch, environment, trainer, use_cpu):
    monkeypatch.setenv(VARIABLE, environment) if environment else monkeypatch.delenv(VARIABLE, raising=False)
    got = training_arguments(TrainingSettings(trainer, 8, 7, 1, "NO", use_cpu), 100, "checkpoints")
    expected = precision_of(trainer, use_cpu=use_cpu)
    assert got.mixed_precision == expected
    assert (got.bf16, got.fp16) == (False, expected == "fp16")


def test_it_is_that_of_the_key_where_there_is_one():
    settings = TrainingSettings({}, 8, 7, 1, "NO", True, mixed_precision="bf16")
    assert training_arguments(settings, 100, "checkpoints").mixed_precision == "bf16"


def test_a_variable_of_the_environment_changes_no_bit(tmp_path, monkeypatch):
    make_rows(tmp_path)
    trained = {}
    for name, value in (("plain", "no"), ("leftover", "bf16")):
        monkeypatch.setenv(VARIABLE, value)
        run(tmp_path, name, "per_token", max_steps=1)
        trained[name] = load_file(tmp_path / name / "model" / "model.safetensors")
    monkeypatch.setenv(VARIABLE, "no")
    run(tmp_path, "stated", "per_token", max_steps=1, bf16=True)
    stated = load_file(tmp_path / "stated" / "model" / "model.safetensors")
    for name, weight in trained["plain"].items():
        assert torch.equal(weight, trained["leftover"][name])
    assert any(not torch.equal(weight, stated[name]) for name, weight in trained["plain"].items())
