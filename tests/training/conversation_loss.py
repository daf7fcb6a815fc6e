"""A miniature, rows of unequal lengths and both losses by brute force."""

import datasets
import torch
from transformers import AutoModelForCausalLM

from deita_train.data.rendering import IGNORED, load_tokenizer
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import LabelledRow, write_training_rows
from deita_train.training.sampler import LengthGroupedBatches
from deita_train.training.trainer_run import train

NUM_ROWS, BATCH, SEED, RATE = 12, 4, 5, 0.5
TRAINER = {
    "optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0, "num_train_epochs": 1,
    "logging_steps": 1,
}  # fmt: skip
ADAPTER = {"r": 4, "target_modules": "all-linear"}
# Of trainings that learn something of these rows in twelve steps.
LEARNING = {"optim": "adamw_torch", "learning_rate": 1e-2, "num_train_epochs": 4}


def make_rows(folder):
    """A base, and rows of 5 to 27 tokens with 1 to 19 of them in the loss."""
    tokenizer = train_tokenizer([], 259, "", folder / "base")
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "context_length": 64}
    make_model(tokenizer, **shape, seed=3, folder=folder / "base")
    draw = torch.Generator().manual_seed(1)
    rows = []
    for number in range(NUM_ROWS):
        ids = torch.randint(3, 259, (5 + 2 * number,), generator=draw).tolist()
        silent = len(ids) - 1 if number % 3 == 0 else 4 + number // 3
        rows.append(LabelledRow(f"r{number}", ids, [IGNORED] * silent + ids[silent:]))
    write_training_rows(rows, folder / "rows")


def widen(folder, width):
    """A base of that width and two layers in place of the small one."""
    shape = {"hidden_size": width, "num_layers": 2, "num_heads": 2, "context_length": 64}
    make_model(load_tokenizer(str(folder / "base")), **shape, seed=3, folder=folder / "base")


def run(
    folder, name, loss, world_size=1, packing=False, minutes=30.0, on_log=None, adapter=None, use_cpu=True, **trainer
):
    """Train as the stages do; the outcome, with the model in `folder/name`. `adapter` is peft and quantization."""
    distributed_type = "NO" if world_size == 1 else "MULTI_CPU"
    settings = TrainingSettings(
        {**TRAINER, **trainer}, BATCH, SEED, world_size, distributed_type, use_cpu, loss=loss, packing=packing,
        checkpoint_minutes=minutes, **(adapter or {}),
    )  # fmt: skip
    rows = datasets.load_from_disk(str(folder / "rows"))
    base = str(folder / "base")
    out = folder / name
    log = ignore if on_log is None else lambda numbers, step: on_log(numbers)
    return train(base, load_tokenizer(base), rows, settings, out / "checkpoints", out / "model", ignore, log)


def ignore(*told):
    """Nobody listens here."""


def brute_force(folder, loss):
    """Losses and weights of gradient descent on the loss as it is defined, one row at a time, in float64."""
    rows = list(datasets.load_from_disk(str(folder / "rows")))
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    order = list(LengthGroupedBatches([row["length"] for row in rows], BATCH, SEED))
    losses = []
    for start in range(0, NUM_ROWS, BATCH):
        batch = [surprises(model, rows[place]) for place in order[start : start + BATCH]]
        per_conversation = torch.stack([row.mean() for row in batch]).mean()
        total = per_conversation if loss == "per_conversation" else torch.cat(batch).mean()
        model.zero_grad()
        total.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= RATE * weight.grad
        losses.append(float(total.detach()))
    return losses, model.state_dict()


def surprises(model, row):
    """-log p of each labelled token."""
    log_probs = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    places = [place for place, label in enumerate(row["labels"]) if label != IGNORED]
    return torch.stack([-log_probs[place - 1, row["labels"][place]] for place in places])
