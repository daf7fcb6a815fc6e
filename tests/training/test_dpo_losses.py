"""Every loss of DPO by its formula, and its gradient, from the model's own logits in float64.

The reference's log-probabilities are columns of the rows, so that any numbers do: the losses of the first step then
differ from those at the start of a training, where policy and reference are the same.
"""

import inspect
import math
import re
from dataclasses import dataclass
from importlib.resources import files

import datasets
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM
from trl import DPOTrainer

from deita_train.data.rendering import RenderedPair, load_tokenizer
from deita_train.training.arguments import TrainingSettings
from deita_train.training.miniature import make_model, train_tokenizer
from deita_train.training.rows import PairRow, write_pair_rows
from deita_train.training.trainer_run import train

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
BETA, RATE, PAIRS, EPSILON, TAU, ALPHA = 0.3, 0.05, 6, 0.1, 0.5, 0.4
TRAINER = {
    "optim": "sgd", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0, "max_steps": 1,
    "per_device_train_batch_size": PAIRS, "logging_steps": 1, "beta": BETA,
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """Of all pairs: log-probabilities minus the reference's, and without, each [N]; their tokens; and of a token what
    WPO weighs by."""

    c: torch.Tensor
    r: torch.Tensor
    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    weights: torch.Tensor

    @property
    def d(self):
        return self.c - self.r


def of_mean(s):
    return s.c / s.chosen_tokens - s.r / s.rejected_tokens


def smooth(x, epsilon=EPSILON):
    return -(1 - epsilon) * logsigmoid(BETA * x) - epsilon * logsigmoid(-BETA * x)


def discopop(x):
    mixed = torch.sigmoid(x / TAU)
    return -logsigmoid(x) * (1 - mixed) + torch.exp(-x) * mixed


def exo(x):
    q, log_q, log_not = torch.sigmoid(x), logsigmoid(x), logsigmoid(-x)
    return q * (log_q - math.log(1 - EPSILON)) + (1 - q) * (log_not - math.log(EPSILON))


def robust(x):
    return (-(1 - EPSILON) * logsigmoid(x) + EPSILON * logsigmoid(-x)) / (1 - 2 * EPSILON)


def sorted_differences(first, second):
    return first.sort().values - second.sort().values


FORMULAS = {
    "sigmoid": lambda s: -logsigmoid(BETA * s.d),
    "sigmoid_norm": lambda s: -logsigmoid(BETA * of_mean(s)),
    "hinge": lambda s: (1 - BETA * s.d).clamp(min=0),
    "ipo": lambda s: (of_mean(s) - 1 / (2 * BETA)) ** 2,
    "exo_pair": lambda s: exo(BETA * s.d),
    "nca_pair": lambda s: -logsigmoid(BETA * s.c) - (logsigmoid(-BETA * s.c) + logsigmoid(-BETA * s.r)) / 2,
    "robust": lambda s: robust(BETA * s.d),
    "bco_pair": lambda s: -logsigmoid(BETA * s.c) - logsigmoid(-BETA * s.r),
    "sppo_hard": lambda s: (s.c - 1 / (2 * BETA)) ** 2 + (s.r + 1 / (2 * BETA)) ** 2,
    "apo_zero": lambda s: 1 - torch.sigmoid(BETA * s.c) + torch.sigmoid(BETA * s.r),
    "apo_down": lambda s: torch.sigmoid(BETA * s.c) + 1 - torch.sigmoid(BETA * s.d),
    "discopop": lambda s: discopop(BETA * s.d),
    # They compare the pairs of a batch in order: see docs/training.md.
    "aot": lambda s: smooth(sorted_differences(s.chosen - s.rejected, s.chosen - s.rejected - s.d)),
    "aot_unpaired": lambda s: smooth(sorted_differences(s.c, s.r)),
    # A mean over tokens, not over pairs.
    "sft": lambda s: (-s.chosen.sum() / s.chosen_tokens.sum()).expand(PAIRS),
}  # fmt: skip
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
DIVERGENCES = {
    "reverse_kl": lambda x: x,
    "forward_kl": lambda x: 1 - torch.exp(-x),
    "js_divergence": lambda x: math.log(2) + logsigmoid(x),
    "alpha_divergence": lambda x: (torch.exp((ALPHA - 1) * x) - 1) / (ALPHA - 1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("losses")
    tokenizer = train_tokenizer([], 259, TEMPLATE, made / "base")
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": 64}
    make_model(tokenizer, **shape, seed=3, folder=made / "base")
    draw = torch.Generator().manual_seed(4)
    rows = []
    for number in range(PAIRS):
        prompt, chosen, rejected = (
            torch.randint(3, 259, (count,), generator=draw).tolist() for count in (4, 2 + number, 9 - number)
        )
        # Beside the model's own, about -5.6 a token, so that some answers have become likelier and others less so.
        references = (-5.6 * len(chosen) + 2 - number, -5.6 * len(rejected) + 1.5 * number - 4)
        rows.append(PairRow(f"p{number}", RenderedPair(prompt, chosen, rejected, False), *references))
    write_pair_rows(rows, made / "rows")
    return made


def score(model, rows):
    """By the model's own logits, one sequence at a time."""
    sums, weights = [], []
    for row in rows:
        product = 1.0
        for name in ("chosen", "rejected"):
            answer = row[f"{name}_ids"]
            logits = model(input_ids=torch.tensor([row["prompt_ids"] + answer])).logits[0]
            log_probs = logits.log_softmax(-1)[len(row["prompt_ids"]) - 1 : -1]
            of_tokens = log_probs.gather(-1, torch.tensor(answer)[:, None])[:, 0]
            sums.append(of_tokens.sum())
            product *= float(torch.exp((of_tokens - (2 * log_probs).logsumexp(-1)).mean()).detach())
        weights.append(product)
    chosen, rejected = torch.stack(sums[0::2]), torch.stack(sums[1::2])
    reference = [torch.tensor([row[f"ref_{name}_logps"] for row in rows]).double() for name in ("chosen", "rejected")]
    tokens = [torch.tensor([len(row[f"{name}_ids"]) for row in rows]) for name in ("chosen", "rejected")]
    return Scored(chosen - reference[0], rejected - reference[1], chosen, rejected, *tokens, torch.tensor(weights))


def check(folder, out, formula, **fields):
    """The loss of the first step, and the weights after it, by a formula and by the training."""
    rows = list(datasets.load_from_disk(str(folder / "rows")))
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    expected = formula(score(model, rows))
    expected.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= RATE * weight.grad
    settings = TrainingSettings({**TRAINER, **fields}, PAIRS, 5, 1, "NO", True, kind="dpo")
    base, data = str(folder / "base"), datasets.load_from_disk(str(folder / "rows"))
    tokenizer = load_tokenizer(base)
    outcome = train(base, tokenizer, data, settings, out / "checkpoints", out / "model", ignore, ignore)
    assert outcome.history[0]["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, weight in load_file(out / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight.double(), model.state_dict()[name], atol=2e-6, rtol=0)


def ignore(*told):
    """Nobody listens here."""


@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_is_its_formula(folder, tmp_path, name):
    smoothed = {"label_smoothing": EPSILON} if name in SMOOTHED else {}
    fields = {"loss_type": [name], "discopop_tau": TAU, **smoothed}
    check(folder, tmp_path, lambda scored: FORMULAS[name](scored).mean(), **fields)


@pytest.mark.parametrize(
    ("name", "divergence"), [*(("sigmoid", divergence) for divergence in DIVERGENCES), ("ipo", "js_divergence")]
)
def test_a_divergence_changes_both_ratios(folder, tmp_path, name, divergence):
    def formula(s):
        c, r = map(DIVERGENCES[divergence], (s.c, s.r))
        changed = Scored(c, r, s.chosen, s.rejected, s.chosen_tokens, s.rejected_tokens, s.weights)
        return FORMULAS[name](changed).mean()

    fields = {"f_divergence_type": divergence, "f_alpha_divergence_coef": ALPHA}
    check(folder, tmp_path, formula, loss_type=[name], **fields)


def test_several_losses_are_added_by_their_weights(folder, tmp_path):
    """MPO's: https://huggingface.co/papers/2411.10442."""
    weights = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
    check(
        folder, tmp_path, lambda s: sum(weight * FORMULAS[name](s).mean() for name, weight in weights.items()),
        loss_type=list(weights), loss_weights=list(weights.values()),
    )  # fmt: skip


def test_pairs_are_weighed_by_how_likely_the_policy_writes_them(folder, tmp_path):
    """WPO's: https://huggingface.co/papers/2406.11827."""
    check(folder, tmp_path, lambda s: (s.weights * FORMULAS["sigmoid"](s)).mean(), use_weighting=True)


def test_every_loss_of_the_installed_trl_has_a_formula():
    known = re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer))
    assert set(known) == set(FORMULAS)
