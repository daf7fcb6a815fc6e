"""Trainings in which micro-batches and ranks do not divide the rows, and the same by hand: a loop, row by row.

The loop by hand knows global batches alone, and computes in float64.
"""

import json
import math
import random
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from deita_train.data.rendering import IGNORED, RenderedPair, load_tokenizer
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import LabelledRow, PairRow, write_pair_rows, write_training_rows
from deita_train.training.sampler import ORDERS
from deita_train.training.trainer_run import train

SEED, BETA, SMOOTHING = 5, 0.3, 0.2
MOST_ROWS = 40
TRAINER = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0, "logging_steps": 1}
LOSSES = {
    "per_token": {}, "per_conversation": {}, "smoothed": {"label_smoothing_factor": SMOOTHING},
    "dft": {"loss_type": "dft"},
    "sigmoid": {"loss_type": ["sigmoid"]}, "ipo": {"loss_type": ["ipo"]}, "weighted": {"use_weighting": True},
    "sigmoid+sft": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
}  # fmt: skip
# Steps that move the losses, but not so far that rounding grows.
RATES = {
    "per_token": 0.1, "per_conversation": 0.1, "smoothed": 0.1, "dft": 20.0, "sigmoid": 0.02, "ipo": 0.02,
    "weighted": 0.02, "sigmoid+sft": 0.02,
}  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """A training: how many rows, and how they are divided."""

    loss: str
    rows: int
    ranks: int
    micro: int
    accumulation: int
    epochs: float = 1
    packing: bool = False
    order: str | None = None
    drop: bool = False

    @property
    def batch(self):
        return self.ranks * self.micro * self.accumulation

    @property
    def is_dpo(self):
        return self.loss in ("sigmoid", "ipo", "weighted", "sigmoid+sft")

    @property
    def name(self):
        return "-".join(str(value) for value in vars(self).values())

    @property
    def settings(self):
        trainer = {
            **TRAINER, **LOSSES[self.loss], "learning_rate": RATES[self.loss], "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.micro, "dataloader_drop_last": self.drop,
        }  # fmt: skip
        if self.order is not None:
            trainer["train_sampling_strategy"] = self.order
        weight = "per_conversation" if self.loss == "per_conversation" else "per_token"
        how = {"kind": "dpo"} if self.is_dpo else {"loss": weight, "packing": self.packing}
        if self.is_dpo:
            trainer["beta"] = BETA
        kind = "NO" if self.ranks == 1 else "MULTI_CPU"
        return TrainingSettings(trainer, self.batch, SEED, self.ranks, kind, True, **how)


def drawn(seed):
    """A draw of one to three ranks."""
    choice = random.Random(seed)
    loss = choice.choice([*LOSSES])
    return Draw(
        loss, choice.randint(1, MOST_ROWS), choice.randint(1, 3), choice.randint(1, 5), choice.randint(1, 3),
        choice.choice([1, 2, 1.5]), packing="per" in loss and choice.random() < 0.3,
        order=choice.choice([None, None, *ORDERS]),
    )  # fmt: skip


def make_rows(folder):
    """A base, rows of 5 to 24 tokens with 1 to 20 of them in the loss, and pairs."""
    tokenizer = train_tokenizer([], 259, "", folder / "base")
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "context_length": 64}
    make_model(tokenizer, **shape, seed=3, folder=folder / "base")
    generator, choice = torch.Generator().manual_seed(1), random.Random(2)

    def tokens(number):
        return torch.randint(3, 259, (number,), generator=generator).tolist()

    rows, pairs = [], []
    for number in range(MOST_ROWS):
        ids = tokens(choice.randint(5, 24))
        silent = choice.randint(4, len(ids) - 1)
        rows.append(LabelledRow(f"r{number}", ids, [IGNORED] * silent + ids[silent:]))
        pair = RenderedPair(*(tokens(choice.randint(2, most)) for most in (6, 9, 12)), False)
        references = (-5.6 * len(ids) + choice.uniform(-1, 1) for ids in (pair.chosen_ids, pair.rejected_ids))
        pairs.append(PairRow(f"p{number}", pair, *references))
    write_training_rows(rows, folder / "sft_rows")
    write_pair_rows(pairs, folder / "dpo_rows")


def rows_of(folder, draw):
    """The rows that it trains on."""
    rows = datasets.load_from_disk(str(folder / ("dpo_rows" if draw.is_dpo else "sft_rows")))
    return rows.select(range(draw.rows))


def train_draws(folder, draws):
    """Train as the stages do, on as many ranks as the environment says; what each came to lies in its folder."""
    for draw in draws:
        base, out = str(folder / "base"), folder / draw.name
        outcome = train(
            base, load_tokenizer(base), rows_of(folder, draw), draw.settings, out / "checkpoints", out / "model",
            ignore, ignore,
        )  # fmt: skip
        (out / "history.json").write_text(json.dumps(outcome.history))


def ignore(*told):
    """Nobody listens here."""


def check_draw(folder, draw):
    """Losses, rewards and weights are those of the loop by hand."""
    history = json.loads((folder / draw.name / "history.json").read_text())
    expected, weights = by_hand(folder, draw)
    for name, values in expected.items():
        np.testing.assert_allclose([entry[name] for entry in history], values, atol=6e-5, err_msg=f"{draw} {name}")
    trained = load_file(folder / draw.name / "model" / "model.safetensors")
    assert trained.keys() == weights.keys()
    base = load_file(folder / "base" / "model.safetensors")
    moved = max(float((weight - base[name]).abs().max()) for name, weight in weights.items())
    assert moved > 1e-3, f"{draw}: nothing would show"
    for name, weight in trained.items():
        torch.testing.assert_close(weight.double(), weights[name], atol=2e-5, rtol=0, msg=lambda text: f"{draw} {text}")


def by_hand(folder, draw):
    """The numbers of every step, and the weights after all of them."""
    rows = list(rows_of(folder, draw))
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    of_batch = dpo_loss if draw.is_dpo else sft_loss
    history = []
    for batch in global_batches(rows, draw):
        loss, numbers = of_batch(model, draw, [rows[place] for place in batch])
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= RATES[draw.loss] * weight.grad
        history.append({"loss": float(loss.detach()), **numbers})
    return {name: [numbers[name] for numbers in history] for name in history[0]}, model.state_dict()


def global_batches(rows, draw):
    """The positions of the rows of each step."""
    order = ORDERS[draw.order]([row["length"] for row in rows], draw.batch, SEED)
    steps = math.floor(len(rows) / draw.batch) if draw.drop else math.ceil(len(rows) / draw.batch)
    for step in range(math.ceil(steps * draw.epochs)):
        order.set_epoch(step // steps)
        start = step % steps * draw.batch
        yield list(order)[start : start + draw.batch]


def sft_loss(model, draw, rows):
    surprises = [-log_probs(model, row["input_ids"], row["labels"]) for row in rows]
    if draw.loss == "per_conversation":
        return torch.stack([row.mean() for row in surprises]).mean(), {}
    if draw.loss == "dft":
        return torch.cat([row * (-row.detach()).exp() for row in surprises]).mean(), {}
    loss = torch.cat(surprises).mean()
    if draw.loss == "smoothed":
        words = [-all_log_probs(model, row["input_ids"], row["labels"]).mean(-1) for row in rows]
        loss = (1 - SMOOTHING) * loss + SMOOTHING * torch.cat(words).mean()
    return loss, {}


def dpo_loss(model, draw, rows):
    """And the rewards, which DPO's log has too."""
    losses, margins, chosen_tokens = [], [], []
    for row in rows:
        prompt, answers = row["prompt_ids"], [row["chosen_ids"], row["rejected_ids"]]
        logs = [log_probs(model, prompt + ids, [IGNORED] * len(prompt) + ids) for ids in answers]
        references = (row["ref_chosen_logps"], row["ref_rejected_logps"])
        chosen, rejected = (log.sum() - reference for log, reference in zip(logs, references, strict=True))
        if draw.loss == "ipo":
            lengths = [len(ids) for ids in answers]
            losses.append((chosen / lengths[0] - rejected / lengths[1] - 1 / (2 * BETA)) ** 2)
        else:
            weight = likelihood(model, prompt, answers) if draw.loss == "weighted" else 1
            losses.append(-logsigmoid(BETA * (chosen - rejected)) * weight)
        margins.append(BETA * float((chosen - rejected).detach()))
        chosen_tokens.append(logs[0])
    loss = torch.stack(losses).mean()
    if draw.loss == "sigmoid+sft":
        loss = loss - 0.5 * torch.cat(chosen_tokens).mean()
    return loss, {"reward_margin": np.mean(margins), "reward_accuracy": np.mean([margin > 0 for margin in margins])}


def likelihood(model, prompt, answers):
    """How likely the policy writes a pair's answers, by WPO's measure."""
    weight = 1.0
    for ids in answers:
        every = all_log_probs(model, prompt + ids, [IGNORED] * len(prompt) + ids).detach()
        own = every[torch.arange(len(ids)), ids]
        weight *= (own - (2 * every).logsumexp(-1)).mean().exp()
    return weight


def log_probs(model, ids, labels):
    """Of each labelled token."""
    logs, trained = all_log_probs(model, ids, labels), [label for label in labels if label != IGNORED]
    return logs[torch.arange(len(trained)), trained]


def all_log_probs(model, ids, labels):
    """Of every word of the vocabulary in the place of each labelled token."""
    logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return logs[[place - 1 for place, label in enumerate(labels) if label != IGNORED]]
