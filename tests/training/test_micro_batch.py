import json

import pytest
from conversation_loss import make_rows, run
from transformers import LlamaConfig

from deita_train.training import micro_batch
from deita_train.training.arguments import TrainingSettings, training_arguments
from deita_train.training.checkpoints import writers_of
from deita_train.training.memory import ModelShape
from deita_train.training.micro_batch import choose_micro_batch

CONFIG = LlamaConfig(
    vocab_size=100, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4,
)  # fmt: skip
# Weights, gradients and moments of 107,200 parameters, 16 bytes each; three layers' worth of a token, 5,120 each.
STATE, TOKEN = 16 * 107_200, 3 * 5120


@pytest.fixture
def model(tmp_path):
    CONFIG.save_pretrained(tmp_path)
    return tmp_path


def chosen(model, monkeypatch, free, *, batch=24, resume=None, lengths=(50, 100), **settings):
    monkeypatch.setattr(micro_batch, "free_bytes", lambda device: free)
    trainer = settings.pop("trainer", {})
    wanted = TrainingSettings(trainer, batch, 7, settings.pop("world_size", 1), "NO", True, **settings)
    arguments = training_arguments(wanted, 1000, model / "checkpoints")
    choose_micro_batch(arguments, wanted, ModelShape.of(model, None), list(lengths), resume)
    return arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps


@pytest.mark.parametrize(("fits", "expected"), [(1, (1, 24)), (5, (4, 6)), (7, (6, 4)), (12, (12, 2)), (500, (24, 1))])
def test_the_largest_divisor_that_the_memory_holds(model, monkeypatch, fits, expected):
    free = (STATE + (fits + 0.5) * 100 * TOKEN) / 0.8
    assert chosen(model, monkeypatch, free) == expected


def test_a_pair_is_two_sequences(model, monkeypatch):
    free = (STATE + 12.5 * 100 * TOKEN) / 0.8
    assert chosen(model, monkeypatch, free, kind="dpo") == (6, 4)


def test_with_more_than_32_sequences_nothing_is_gained(model, monkeypatch):
    assert chosen(model, monkeypatch, 2**40, batch=512) == (32, 16)


def test_on_a_cpu_a_large_vocabulary_allows_about_256_mib_of_logits(tmp_path, monkeypatch):
    """Rows of 500 tokens: 4 * 32,000 * 500 bytes are 61 MiB."""
    LlamaConfig.from_dict({**CONFIG.to_dict(), "vocab_size": 32_000}).save_pretrained(tmp_path)
    assert chosen(tmp_path, monkeypatch, 2**40, lengths=(50, 500)) == (4, 6)
    assert chosen(tmp_path, monkeypatch, 2**40, lengths=(50, 500), kind="dpo") == (2, 12)
    assert chosen(tmp_path, monkeypatch, 2**40, lengths=(50, 5000)) == (1, 24)


def test_a_packed_row_on_a_cpu_has_about_2048_tokens(model, monkeypatch):
    assert chosen(model, monkeypatch, 2**40, batch=512, lengths=(200, 300), packing=True) == (8, 64)
    assert chosen(model, monkeypatch, 2**40, batch=512, lengths=(5000, 6000), packing=True) == (1, 512)


def test_what_is_stated_is_not_looked_into(model, monkeypatch):
    assert chosen(model, monkeypatch, 0, trainer={"per_device_train_batch_size": 8}) == (8, 3)


def checkpoint(folder, micro, world_size):
    folder.mkdir()
    (folder / "complete.json").write_text(
        json.dumps({"files": {}, "world_size": world_size, "distributed_type": "MULTI_GPU"})
    )
    (folder / "trainer_state.json").write_text(json.dumps({"train_batch_size": micro}))
    return folder


def test_a_training_that_goes_on_keeps_its_micro_batch(model, monkeypatch):
    resume = checkpoint(model / "checkpoint-5", 3, 2)
    assert chosen(model, monkeypatch, 2**40, resume=resume, world_size=2) == (3, 4)
    # On one rank the share is another one, and the memory decides.
    assert chosen(model, monkeypatch, 2**40, resume=resume, world_size=1) == (24, 1)


def test_the_checkpoint_of_a_real_training_has_its_micro_batch(tmp_path):
    make_rows(tmp_path)
    outcome = run(tmp_path, "real", "per_token", max_steps=1, per_device_train_batch_size=2)
    assert outcome.micro_batch == 2
    folder = tmp_path / "real" / "checkpoints" / "checkpoint-1"
    assert writers_of(folder).world_size == 1
    assert micro_batch._kept(folder, 1) == 2 and micro_batch._kept(folder, 2) is None
