"""A training tried on a tiny copy of its model: what would stop it is told with its field, and nothing else is."""

import errno

import pytest
import torch
from transformers import CTRLConfig, Gemma2Config, GPT2Config, LlamaConfig, MixtralConfig

from deita_train.errors import MachineFault
from deita_train.models.tiny_copy import NotCopied
from deita_train.training import trial
from deita_train.training.arguments import TrainingSettings
from deita_train.training.trial import try_training

LLAMA = LlamaConfig(num_hidden_layers=8, hidden_size=256, intermediate_size=256, num_attention_heads=8, vocab_size=999)


def tried(kind="sft", config=LLAMA, *, use_cpu=True, elsewhere=False, merge=False, how=None, **trainer):
    settings = TrainingSettings(trainer, 8, 7, 2, "NO", use_cpu, kind=kind, **(how or {}))
    return try_training(config, settings, merge_adapter=merge, elsewhere=elsewhere)


def problems(*arguments, **named):
    result = tried(*arguments, **named)
    assert result.untried is None
    return {problem.path: problem.text for problem in result.problems}


@pytest.mark.parametrize(
    ("kind", "how", "trainer"),
    [
        ("sft", {}, {"learning_rate": 1e-4, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1}),
        ("sft", {"packing": True}, {"max_length": 512, "dataloader_num_workers": 3, "dataloader_prefetch_factor": 2}),
        ("sft", {"loss": "per_conversation"}, {"dataloader_drop_last": True, "train_sampling_strategy": "sequential"}),
        ("sft", {"peft": {"r": 4, "target_modules": ["up_proj"], "layers_to_transform": [7]}}, {"weight_decay": 0.1}),
        ("sft", {}, {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 500}}),
        ("sft", {}, {"model_init_kwargs": {"dtype": "bfloat16", "attn_implementation": "eager"}, "bf16": True}),
        ("dpo", {}, {"loss_type": ["robust", "sft"], "loss_weights": [1.0, 0.5], "label_smoothing": 0.1}),
        (
            "dpo",
            {},
            {"f_divergence_type": "alpha_divergence", "use_weighting": True, "train_sampling_strategy": "random"},
        ),
        ("dpo", {"peft": {"r": 4}}, {"beta": 0.3}),
        ("sft", {"peft": {"r": 4, "trainable_token_indices": [900]}}, {}),
    ],
)
def test_a_right_training_passes(kind, how, trainer):
    assert problems(kind, how=how, **trainer) == {}


@pytest.mark.parametrize(
    ("config", "trainer"),
    [
        (GPT2Config(), {}),
        (Gemma2Config(), {"model_init_kwargs": {"attn_implementation": "eager"}}),
        (MixtralConfig(), {"router_aux_loss_coef": 0.01}),
        (None, {"learning_rate": 1e-4}),
    ],
)
def test_other_architectures_pass(config, trainer):
    assert problems(config=config, **trainer) == {}


@pytest.mark.parametrize(
    ("kind", "trainer", "path", "words"),
    [
        ("sft", {"optim": "paged_adamw_8bit"}, "trainer.optim", "bitsandbytes"),
        ("sft", {"use_liger_kernel": True}, "trainer.use_liger_kernel", "the package liger-kernel"),
        ("sft", {"optim": "sgd", "optim_args": "momentum=much"}, "trainer.optim_args", "could not convert"),
        ("sft", {"learning_rate": -1.0}, "trainer.learning_rate", "Invalid learning rate"),
        ("sft", {"lr_scheduler_type": "warmup_stable_decay"}, "trainer.lr_scheduler_type", "num_decay_steps"),
        ("sft", {"lr_scheduler_type": "cosine_with_min_lr"}, "trainer.lr_scheduler_type", "min_lr or min_lr_rate"),
        (
            "sft",
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 5, "decay_type": "steep"},
            },
            "trainer.lr_scheduler_kwargs",
            "Unknown decay type: steep",
        ),
        ("sft", {"router_aux_loss_coef": 0.01}, "trainer.router_aux_loss_coef", "not a Mixture-of-Experts model"),
        ("sft", {"model_init_kwargs": {"atn": "eager"}}, "trainer.model_init_kwargs", "unexpected keyword argument"),
        ("sft", {"model_init_kwargs": {"dtype": "bf16"}}, "trainer.model_init_kwargs", "Invalid `dtype`"),
        ("sft", {"activation_offloading": True}, "trainer.activation_offloading", "from a GPU, and there is none"),
        ("sft", {"log_level": "loud"}, "trainer.log_level", "KeyError: 'loud'"),
        ("sft", {"torch_compile_backend": "none_such"}, "trainer.torch_compile_backend", "not a valid DynamoBackend"),
        ("dpo", {"loss_type": ["sigmoid", "none_such"]}, "trainer.loss_type", "Unknown loss type: none_such"),
        ("dpo", {"loss_type": ["exo_pair"]}, "trainer.loss_type", "Label smoothing must be greater than 0"),
        ("dpo", {"loss_weights": [1.0, 1.0]}, "trainer.loss_weights", "must have the same length"),
        ("dpo", {"f_divergence_type": "none_such"}, "trainer.f_divergence_type", "Unknown f_divergence_type"),
        (
            "dpo",
            {"loss_type": ["robust"], "label_smoothing": 0.5},
            "trainer.label_smoothing",
            "the loss is nan before the first step",
        ),
    ],
)
def test_what_would_stop_a_training_is_told_with_its_field(kind, trainer, path, words):
    found = problems(kind, **trainer)
    assert [*found] == [path] and words in found[path]


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("sft", {"selective": True}, None),
        ("sft", {"use_reentrant": True}, None),
        ("sft", {"every_n_layers": 2, "offload": True}, None),
        ("sft", {"use_rentrant": True}, "Unexpected keyword arguments: use_rentrant"),
        ("dpo", {"selective": True}, "Unexpected keyword arguments: selective"),
    ],
)
@pytest.mark.parametrize("use_cpu", [False, True])
def test_options_of_recomputing_are_tried_where_it_is_on(kind, options, words, use_cpu):
    """On a GPU it is on unless the recipe says otherwise, on a CPU where it says so."""
    stated = {"gradient_checkpointing": True} if use_cpu else {}
    found = problems(kind, use_cpu=use_cpu, **stated, gradient_checkpointing_kwargs=options)
    if words is None:
        assert found == {}
    else:
        assert [*found] == ["trainer.gradient_checkpointing_kwargs"]
        assert words in found["trainer.gradient_checkpointing_kwargs"]


def test_a_model_that_cannot_recompute_passes_unless_it_is_told_to(monkeypatch):
    assert problems(config=CTRLConfig(n_layer=2, n_embd=32, n_head=2, dff=32), use_cpu=False) == {}
    found = problems(config=CTRLConfig(n_layer=2, n_embd=32, n_head=2, dff=32), gradient_checkpointing=True)
    assert "does not support activation checkpointing" in found["trainer.gradient_checkpointing"]


def test_an_adapter_whose_training_would_fail_is_told(monkeypatch):
    """What only the loss finds out."""

    def fails(trainer, *arguments, **named):
        if hasattr(trainer.model, "peft_config"):
            raise AttributeError("no bias")
        return torch.tensor(1.0)

    monkeypatch.setattr(trial.SFTTrainer, "compute_loss", fails)
    assert problems(how={"peft": {"r": 4}}) == {"peft": "the loss cannot be computed with it: AttributeError: no bias"}
    assert problems() == {}


def test_all_mistakes_are_told_at_once():
    trainer = {
        "learning_rate": 1e-4, "optim": "paged_adamw_8bit", "log_level": "loud", "debug": "none_such",
        "lr_scheduler_type": "cosine_with_min_lr", "loss_type": ["none_such"],
    }  # fmt: skip
    assert {*problems("dpo", **trainer)} == {
        f"trainer.{name}" for name in ("optim", "log_level", "debug", "lr_scheduler_type", "loss_type")
    }


def test_an_adapter_is_tried_on_the_real_shape():
    wrong = problems(how={"peft": {"target_modules": ["nope"]}}, log_level="loud")
    assert [*wrong] == ["peft", "trainer.log_level"], "and the rest is tried without it"
    assert "layers_to_transform': [8]" in problems(how={"peft": {"layers_to_transform": [8]}})["peft"]
    assert [*problems(how={"peft": {"target_modules": ["q_proj", "nope"]}})] == ["peft.target_modules"]
    tied = LlamaConfig(**{**LLAMA.to_dict(), "tie_word_embeddings": True})
    adapter = {"peft": {"target_modules": ["embed_tokens"]}}
    assert problems(config=tied, how=adapter) == {}
    assert [*problems(config=tied, how=adapter, merge=True)] == ["peft.target_modules"]


def test_what_another_machine_may_have_is_not_missed():
    trainer = {"optim": "paged_adamw_8bit", "log_level": "loud"}
    assert {*problems(elsewhere=True, **trainer)} == {"trainer.log_level"}


def test_what_only_a_gpu_can_do_is_left_out_for_a_launch_on_gpus():
    trainer = {
        "bf16": True, "tf32": True, "activation_offloading": True,
        "model_init_kwargs": {"attn_implementation": "flash_attention_2", "dtype": "bfloat16"},
    }  # fmt: skip
    assert problems(use_cpu=False, how={"packing": True}, **trainer) == {}
    assert [*problems(use_cpu=False, model_init_kwargs={"dtype": "bf16"})] == ["trainer.model_init_kwargs"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_precision_of_a_launch_on_gpus_is_not_tried_on_the_cpu(monkeypatch, precision):
    made, make = [], trial.training_arguments
    monkeypatch.setattr(trial, "training_arguments", lambda *how: made.append(make(*how)) or made[-1])
    assert problems(use_cpu=False, how={"mixed_precision": precision}, **{precision: True}) == {}
    assert {arguments.mixed_precision for arguments in made} == {"no"}


def test_what_fails_without_any_field_too_is_no_mistake_of_the_recipe(monkeypatch):
    def fails(*arguments, **named):
        raise RuntimeError("this architecture\nis new")

    monkeypatch.setattr(trial, "SFTTrainer", fails)
    result = tried(learning_rate=1e-4)
    assert (result.problems, result.untried) == ((), "RuntimeError: this architecture is new")


@pytest.mark.parametrize(
    ("error", "words"), [(NotCopied("no such sizes"), "no such sizes"), (KeyError("x"), "KeyError: 'x'")]
)
def test_a_model_that_cannot_be_copied_is_said(monkeypatch, error, words):
    def refuses(config):
        raise error

    monkeypatch.setattr(trial, "tiny_copy", refuses)
    result = tried(learning_rate=1e-4)
    assert result.untried == f"no tiny copy of its model can be made ({words})"
    assert result.problems == ()


def test_a_full_disk_is_the_machine_s_fault(monkeypatch):
    def full(config):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trial, "tiny_copy", full)
    with pytest.raises(MachineFault, match="no space left on device"):
        tried(learning_rate=1e-4)


def test_a_model_that_cannot_be_made_empty_is_no_mistake_of_the_adapter(monkeypatch):
    def fails(*arguments, **named):
        raise RuntimeError("no meta kernels")

    monkeypatch.setattr(trial, "try_adapter", fails)
    assert problems(how={"peft": {"r": 4}}) == {}


def test_it_is_silent_and_leaves_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert problems(learning_rate=1e-4) == {}
    told = capfd.readouterr()
    assert told.out == "" and "weights" not in told.err
    assert list(tmp_path.iterdir()) == []
