"""Our pairs and their reference against trl's own DPO, which renders, scores and trains by itself."""

import math
from importlib.resources import files

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer

from deita_train.data.rendering import load_tokenizer, render_pair
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import PairRow, write_pair_rows
from deita_train.training.trainer_run import train

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
FIELDS = {"learning_rate": 1e-3, "num_train_epochs": 4, "beta": 0.2, "lr_scheduler_type": "linear"}
PROMPTS = ["What is 1 + 1?", "Name a colour.", "Say hello.", "Count to three."]
CHOSEN = ["It is 2.", "Blue, like the sky.", "Hello!", "One, two, three."]
REJECTED = ["no idea, maybe 7", "why", "i do not want to, anyway", "One, three, nine, eleven."]
EARLIER = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def prompts():
    plain = [[{"role": "user", "content": text}] for text in PROMPTS]
    return [*plain[:2], [*EARLIER, *plain[2]], plain[3]]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("miniature")
    tokenizer = train_tokenizer([*PROMPTS, *CHOSEN, *REJECTED], 400, TEMPLATE, folder)
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": 512}
    make_model(tokenizer, **shape, seed=3, folder=folder)
    return folder


def log_prob(model, prompt_ids, answer_ids):
    """By the model's own logits, one sequence at a time, in float64."""
    ids = torch.tensor([prompt_ids + answer_ids])
    with torch.inference_mode():
        log_probs = model(input_ids=ids).logits[0].double().log_softmax(-1)
    start = len(prompt_ids)
    return sum(float(log_probs[start + place - 1, token]) for place, token in enumerate(answer_ids))


def ignore(*told):
    """Nobody listens to the progress here."""


def our_training(model_dir, folder, **fields):
    tokenizer = load_tokenizer(str(model_dir))
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    rows = []
    for prompt, chosen, rejected in zip(prompts(), CHOSEN, REJECTED, strict=True):
        pair = render_pair(tokenizer, prompt, chosen, rejected, 512)
        scores = [log_prob(model, pair.prompt_ids, ids) for ids in (pair.chosen_ids, pair.rejected_ids)]
        rows.append(PairRow(prompt[-1]["content"], pair, *scores))
    write_pair_rows(rows, folder / "rows")
    settings = TrainingSettings(FIELDS | fields, 4, 7, 1, "NO", True, kind="dpo")
    data = datasets.load_from_disk(str(folder / "rows"))
    return train(str(model_dir), tokenizer, data, settings, folder / "checkpoints", folder / "model", ignore, ignore)


def trls_training(model_dir, folder, **fields):
    def message(text):
        return [{"role": "assistant", "content": text}]

    rows = {"prompt": prompts(), "chosen": list(map(message, CHOSEN)), "rejected": list(map(message, REJECTED))}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "rows"))
    arguments = DPOConfig(
        output_dir=str(folder / "out"), **(FIELDS | fields), per_device_train_batch_size=4, use_cpu=True, bf16=False,
        seed=7, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, max_length=512,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=str(model_dir),
        args=arguments,
        train_dataset=datasets.load_from_disk(str(folder / "rows")),
        processing_class=load_tokenizer(str(model_dir)),
    )
    trainer.train()
    trainer.save_model(str(folder / "model"))
    return trainer.state.log_history


@pytest.fixture(scope="module")
def trainings(model_dir, tmp_path_factory):
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    return our_training(model_dir, ours), ours, trls_training(model_dir, theirs), theirs


def test_the_losses_are_those_of_trls_own_path(trainings):
    ours, _, theirs, _ = trainings
    expected = [entry for entry in theirs if "loss" in entry]
    assert len(ours.history) == len(expected) == 4
    assert ours.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert ours.history[-1]["loss"] < math.log(2) - 0.01
    for name, key in (
        ("loss", "loss"),
        ("reward_margin", "rewards/margins"),
        ("reward_accuracy", "rewards/accuracies"),
    ):
        got = [entry[name] for entry in ours.history]
        np.testing.assert_allclose(got, [entry[key] for entry in expected], atol=1e-5)


def test_the_weights_are_those_of_trls_own_path(trainings):
    _, ours, _, theirs = trainings
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (ours, theirs))
    assert a.keys() == b.keys()
    for name, weight in a.items():
        torch.testing.assert_close(weight, b[name], atol=2e-5, rtol=0)


LOSSES = [
    {"loss_type": [name]}
    for name in (
        "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
        "discopop", "sigmoid_norm",
    )
] + [
    {"loss_type": ["robust"], "label_smoothing": 0.1},
    {"loss_type": ["exo_pair"], "label_smoothing": 0.1},
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"},
    {"loss_type": ["sigmoid"], "use_weighting": True},
]  # fmt: skip


@pytest.mark.faults  # each loss has its formula in test_dpo_losses.py
@pytest.mark.parametrize("fields", LOSSES, ids=lambda fields: "+".join(map(str, fields.values())))
def test_every_loss_of_trls_is_passed_through(model_dir, tmp_path, fields):
    """Two steps, the second with a model that has left its reference."""
    fields = fields | {"num_train_epochs": 2}
    ours = our_training(model_dir, tmp_path / "ours", **fields)
    theirs = [entry for entry in trls_training(model_dir, tmp_path / "theirs", **fields) if "loss" in entry]
    got, expected = ([entry["loss"] for entry in history] for history in (ours.history, theirs))
    assert len(got) == 2 and got[0] != got[1]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
