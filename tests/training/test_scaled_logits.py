"""Models that scale or cap their logits: trainings against the models' own forward, one row at a time, in float64."""

import math

import datasets
import numpy as np
import pytest
import torch
from conversation_loss import BATCH, RATE, SEED, TRAINER, brute_force, ignore, make_rows, run
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from deita_train.data.rendering import IGNORED, RenderedPair, load_tokenizer
from deita_train.inference.forward import load_model, pad_batch, pad_right, summed_loss
from deita_train.training.arguments import TrainingSettings
from deita_train.training.rows import PairRow, write_pair_rows
from deita_train.training.trainer_run import train

CPU = torch.device("cpu")
SHAPE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
# Strong enough that a training without them has other losses in the first digit.
MODELS = {
    "gemma2": {"final_logit_softcapping": 1.5, "sliding_window": 8},
    "granite": {"logits_scaling": 0.5},
    "cohere2": {"logit_scale": 2.0, "sliding_window": 8},
}
BETA, PAIRS = 0.3, 8


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp(request.param)
    make_rows(made)
    vocabulary = len(load_tokenizer(str(made / "base")))
    torch.manual_seed(3)
    config = AutoConfig.for_model(request.param, vocab_size=vocabulary, **SHAPE, **MODELS[request.param])
    AutoModelForCausalLM.from_config(config).save_pretrained(made / "base")
    return made


def check_weights(folder, weights):
    trained = load_file(folder / "model" / "model.safetensors")
    for key, weight in trained.items():
        torch.testing.assert_close(weight.double(), weights[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("packing", [False, True])
def test_losses_and_gradients_of_sft_are_the_models_own(folder, packing):
    outcome = run(folder, f"packing_{packing}", "per_token", packing=packing, per_device_train_batch_size=2)
    losses, weights = brute_force(folder, "per_token")
    np.testing.assert_allclose([entry["loss"] for entry in outcome.history], losses, atol=1e-4)
    check_weights(folder / f"packing_{packing}", weights)


def pairs():
    draw = torch.Generator().manual_seed(2)

    def ids(count):
        return torch.randint(3, 259, (count,), generator=draw).tolist()

    return [RenderedPair(ids(3 + number), ids(4 + number), ids(9 - number), False) for number in range(PAIRS)]


def log_prob(model, prompt, answer):
    log_probs = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return torch.stack([log_probs[place, token] for place, token in zip(places, answer, strict=True)]).sum()


def margins(model):
    return [
        log_prob(model, p.prompt_ids, p.chosen_ids) - log_prob(model, p.prompt_ids, p.rejected_ids) for p in pairs()
    ]


def test_references_losses_and_gradients_of_dpo_are_the_models_own(folder):
    """The reference of every pair by batch inference; then one step, from the loss ln 2."""
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    scorer = load_model(str(folder / "base"), "float32", CPU, head=True)
    rows = []
    for number, pair in enumerate(pairs()):
        sequences = [pair.prompt_ids + answer for answer in (pair.chosen_ids, pair.rejected_ids)]
        labels = [[IGNORED] * len(pair.prompt_ids) + row[len(pair.prompt_ids) :] for row in sequences]
        losses, _ = summed_loss(scorer, pad_batch(sequences, CPU), pad_right(labels, IGNORED))
        own = [float(log_prob(model, pair.prompt_ids, ids).detach()) for ids in (pair.chosen_ids, pair.rejected_ids)]
        assert (-losses).tolist() == pytest.approx(own, rel=1e-5)
        rows.append(PairRow(f"p{number}", pair, -losses[0], -losses[1]))
    write_pair_rows(rows, folder / "pairs")
    trainer = {**TRAINER, "beta": BETA, "max_steps": 1, "per_device_train_batch_size": PAIRS}
    settings = TrainingSettings(trainer, PAIRS, SEED, 1, "NO", True, kind="dpo")
    data, base = datasets.load_from_disk(str(folder / "pairs")), str(folder / "base")
    out = folder / "dpo"
    tokenizer = load_tokenizer(base)
    outcome = train(base, tokenizer, data, settings, out / "checkpoints", out / "model", ignore, ignore)
    assert outcome.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    before = [float(margin.detach()) for margin in margins(model)]
    losses = [
        -torch.nn.functional.logsigmoid(BETA * (now - then)) for now, then in zip(margins(model), before, strict=True)
    ]
    torch.stack(losses).mean().backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= RATE * weight.grad
    check_weights(out, model.state_dict())


def test_without_scale_and_cap_the_losses_would_be_others(folder):
    """What the tests above would not see if the models' settings did nothing."""
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    ids = torch.arange(3, 3 + BATCH)[None]
    with torch.no_grad():
        product = model.get_output_embeddings()(model.base_model(input_ids=ids).last_hidden_state)
        assert float((model(input_ids=ids).logits - product).abs().max()) > 0.3
