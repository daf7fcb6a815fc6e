import math

import pytest
from conversation_loss import make_rows, run
from hypothesis import given
from hypothesis import strategies as st
from transformers import CTRLConfig, GPT2Config, TrainerCallback, trainer

from deita_train.training.arguments import (
    CHECKPOINTING,
    TrainingSettings,
    largest_divisor,
    planned_steps,
    training_arguments,
)
from deita_train.training.memory import ModelShape
from deita_train.training.trainer_run import keep_activations, loss_history


def arguments(num_rows=1000, *, batch=32, world_size=1, **trainer):
    settings = TrainingSettings(trainer, batch, 7, world_size, "NO", True)
    return training_arguments(settings, num_rows, "checkpoints")


@pytest.mark.parametrize(
    ("number", "limit", "divisor"),
    [(1, 32, 1), (32, 32, 32), (64, 32, 32), (48, 32, 24), (7, 32, 7), (37, 32, 1), (128, 8, 8), (12, 8, 6), (9, 1, 1)],
)
def test_largest_divisor_by_hand(number, limit, divisor):
    assert largest_divisor(number, limit) == divisor


@given(st.integers(1, 3000), st.integers(1, 64))
def test_largest_divisor_divides_and_nothing_larger_does(number, limit):
    divisor = largest_divisor(number, limit)
    assert number % divisor == 0
    assert divisor <= limit
    assert all(number % larger for larger in range(divisor + 1, limit + 1))


@pytest.mark.parametrize(
    ("num_rows", "batch", "trainer", "steps"),
    [
        (6000, 512, {"num_train_epochs": 6}, 72),  # 11.7, so 12 an epoch
        (512, 512, {"num_train_epochs": 1}, 1),
        (513, 512, {"num_train_epochs": 1}, 2),
        (100, 32, {}, 12),  # three epochs of 4, the trainer's default
        (100, 32, {"num_train_epochs": 0.5}, 2),
        (100, 32, {"num_train_epochs": 0.6}, 3),  # 2.4
        (100, 32, {"num_train_epochs": 0.01}, 1),
        (100, 32, {"num_train_epochs": 6, "max_steps": 5}, 5),
        (100, 32, {"num_train_epochs": 1, "max_steps": -1}, 4),
        (100, 32, {"num_train_epochs": 1, "max_steps": 0}, 4),
        (3, 32, {"num_train_epochs": 1}, 1),
        (513, 512, {"num_train_epochs": 2, "dataloader_drop_last": True}, 2),
        (100, 32, {"num_train_epochs": 1, "dataloader_drop_last": False}, 4),
    ],
)
def test_planned_steps_by_hand(num_rows, batch, trainer, steps):
    assert planned_steps(num_rows, batch, trainer) == steps


@pytest.mark.parametrize(
    ("batch", "world_size", "stated", "micro", "accumulation"),
    [
        (32, 1, None, 32, 1),
        (512, 1, None, 32, 16),
        (512, 4, None, 32, 4),
        (48, 2, None, 24, 1),
        (74, 2, None, 1, 37),
        (128, 2, 4, 4, 16),
        (6, 3, 1, 1, 2),
    ],
)
def test_batch_arithmetic_by_hand(batch, world_size, stated, micro, accumulation):
    trainer = {} if stated is None else {"per_device_train_batch_size": stated}
    got = arguments(batch=batch, world_size=world_size, **trainer)
    assert (got.per_device_train_batch_size, got.gradient_accumulation_steps) == (micro, accumulation)
    assert micro * accumulation * world_size == batch


def test_defaults_on_a_cpu():
    got = arguments()
    assert (got.bf16, got.use_cpu, got.gradient_checkpointing) == (False, True, False)
    assert (got.seed, got.data_seed, got.output_dir) == (7, 7, "checkpoints")
    # transformers would remove an old checkpoint before the new one is recorded as whole.
    assert got.save_total_limit is None
    assert got.logging_nan_inf_filter is False
    assert got.dataset_kwargs == {"skip_prepare_dataset": True}
    assert got.lr_scheduler_type == "cosine"


@pytest.mark.parametrize("name", CHECKPOINTING)
@pytest.mark.parametrize("stated", [True, False])
def test_checkpointing_on_a_gpu_is_as_stated_by_either_name_and_on_without(name, stated):
    def on_gpu(**trainer):
        settings = TrainingSettings({"bf16": False, **trainer}, 8, 7, 1, "NO", use_cpu=False)
        arguments = training_arguments(settings, 100, "checkpoints")
        return {getattr(arguments, name) for name in CHECKPOINTING}

    assert on_gpu() == {True}
    assert on_gpu(**{name: stated}) == {stated}


@pytest.mark.parametrize(
    ("recomputes", "stated", "kept"),
    [(True, {}, True), (False, {}, False), (False, {"gradient_checkpointing": True}, True)],
)
def test_a_model_that_cannot_recompute_its_activations_keeps_them(recomputes, stated, kept):
    settings = TrainingSettings({"bf16": False, **stated}, 8, 7, 1, "NO", use_cpu=False)
    arguments = training_arguments(settings, 100, "checkpoints")
    keep_activations(arguments, settings, ModelShape(None, 1, 1, recomputes))
    assert {getattr(arguments, name) for name in CHECKPOINTING} == {kept}


def test_which_models_can_is_read_from_their_class(tmp_path):
    small = {"n_layer": 1, "n_embd": 8, "n_head": 2, "dff": 8, "vocab_size": 9}
    for config, recomputes in ((CTRLConfig(**small), False), (GPT2Config(n_layer=1, n_embd=8, n_head=2), True)):
        config.save_pretrained(tmp_path)
        assert ModelShape.of(tmp_path, None).recomputes is recomputes


@pytest.mark.parametrize("stated", [True, False])
def test_what_is_stated_of_checkpointing_holds_in_the_model(tmp_path, monkeypatch, stated):
    seen = []

    class Witness(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            seen.append(any(getattr(module, "gradient_checkpointing", False) for module in model.modules()))

    monkeypatch.setattr(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, Witness])
    make_rows(tmp_path)
    run(tmp_path, "run", "per_token", max_steps=1, gradient_checkpointing=stated)
    assert seen == [stated]


def test_stated_fields_win_over_defaults():
    got = arguments(lr_scheduler_type="linear", learning_rate=3e-4, logging_steps=7, save_steps=21)
    assert (got.lr_scheduler_type, got.learning_rate) == ("linear", 3e-4)
    assert (got.logging_steps, got.save_steps) == (7, 21)


@pytest.mark.parametrize(
    ("num_rows", "trainer", "logging_steps", "save_steps"),
    [
        (320, {"num_train_epochs": 1}, 1, 2),  # 10 steps, five parts
        (32, {"num_train_epochs": 1}, 1, 1),
        (32 * 1000, {"num_train_epochs": 1}, 5, 200),
        (32 * 990, {"num_train_epochs": 1}, 4, 200),  # 198 is no multiple of 4
        (320, {"num_train_epochs": 1, "logging_steps": 3}, 3, 3),
    ],
)
def test_checkpoints_fall_on_logging_steps(num_rows, trainer, logging_steps, save_steps):
    got = arguments(num_rows, **trainer)
    assert (got.logging_steps, got.save_steps) == (logging_steps, save_steps)


@pytest.mark.parametrize("steps", [1, 2, 7, 70, 199, 401, 1234, 99_999])
def test_every_run_saves_about_five_times_and_logs_at_most_about_200_times(steps):
    got = arguments(32 * steps, num_train_epochs=1)
    assert got.save_steps % got.logging_steps == 0
    assert min(steps, 3) <= math.ceil(steps / got.save_steps) <= 5
    assert steps / got.logging_steps < 400


def test_loss_history_keeps_the_training_losses():
    logged = [
        {"step": 1, "epoch": 0.5, "loss": "2.5", "learning_rate": "1e-05", "grad_norm": 1.0},
        {"step": 1, "epoch": 0.5, "eval_loss": 2.0},
        {"step": 2, "epoch": 1, "loss": 1.5, "learning_rate": 0.0},
        {"step": 2, "epoch": 1, "train_loss": 2.0, "train_runtime": 1.0},
    ]
    assert loss_history(logged) == [
        {"step": 1, "epoch": 0.5, "loss": 2.5, "learning_rate": 1e-5},
        {"step": 2, "epoch": 1.0, "loss": 1.5, "learning_rate": 0.0},
    ]
