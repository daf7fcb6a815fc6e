"""A mixture of experts: its balancing loss only where it is asked for, and its published configuration the base's."""

import json

import datasets
import pytest
import torch
from conversation_loss import BATCH, RATE, SEED, make_rows, run
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM, set_seed
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from deita_train.data.rendering import IGNORED
from deita_train.training.sampler import LengthGroupedBatches

COEFFICIENT = 0.5
USE = ("use_cache", "output_router_logits", "router_aux_loss_coef")


@pytest.fixture(scope="module", params=[False, True], ids=["plain base", "base with router logits"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("mixture")
    make_rows(made)
    set_seed(3)
    config = MixtralConfig(
        vocab_size=259, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64,
        bos_token_id=0, eos_token_id=1, pad_token_id=2, router_aux_loss_coef=0.02, output_router_logits=request.param,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(made / "base")
    return made


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("coefficient", [None, COEFFICIENT])
def test_the_published_model_is_used_as_its_base(folder, coefficient):
    asked = {} if coefficient is None else {"router_aux_loss_coef": coefficient}
    name = f"published_{coefficient}"
    run(folder, name, "per_token", max_steps=1, **asked)
    base = config_of(folder / "base")
    assert base["use_cache"] is True
    for saved in (folder / name / "model", folder / name / "checkpoints" / "checkpoint-1"):
        assert {use: config_of(saved)[use] for use in USE} == {use: base[use] for use in USE}
    model = AutoModelForCausalLM.from_pretrained(folder / name / "model")
    answer = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > 3 and AutoTokenizer.from_pretrained(folder / "base").decode(answer[0])


def test_the_balancing_loss_is_trained_only_where_it_is_asked_for(folder):
    """Of a plain gradient step: the routers' weights move by the gradient of the loss that is asked for."""
    batch, model = the_batch(folder), loaded(folder / "base")
    expected = {}
    for name, asked in (("plain", {}), ("balanced", {"router_aux_loss_coef": COEFFICIENT})):
        run(folder, name, "per_token", max_steps=1, per_device_train_batch_size=4, **asked)
        model.zero_grad()
        loss(model, batch, asked.get("router_aux_loss_coef", 0.0)).backward()
        expected[name] = stepped(router(model))
        torch.testing.assert_close(router(loaded(folder / name / "model")).detach(), expected[name], atol=1e-6, rtol=0)
    assert (expected["plain"] - router(model)).abs().max() > 5e-5
    assert (expected["plain"] - expected["balanced"]).abs().max() > 5e-5


def router(model):
    [weight] = (weight for name, weight in model.named_parameters() if name.endswith("gate.weight"))
    return weight


def stepped(weight):
    return (weight - RATE * weight.grad).detach()


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, experts_implementation="eager")


def the_batch(folder):
    """The first global batch, padded on the right."""
    rows = list(datasets.load_from_disk(str(folder / "rows")))
    order = list(LengthGroupedBatches([row["length"] for row in rows], BATCH, SEED))[:BATCH]
    longest = max(rows[place]["length"] for place in order)

    def padded(name, filler):
        return torch.tensor([[*rows[place][name], *[filler] * (longest - rows[place]["length"])] for place in order])

    return padded("input_ids", 2), padded("labels", IGNORED)


def loss(model, batch, coefficient):
    """The mean over trained tokens, and the balance of the experts over all tokens of the batch."""
    ids, labels = batch
    mask = (torch.arange(ids.shape[1]) < (labels != IGNORED).cumsum(1).argmax(1, keepdim=True) + 1).long()
    outputs = model(input_ids=ids, attention_mask=mask, output_router_logits=True)
    logs = outputs.logits[:, :-1].log_softmax(-1)
    trained = labels[:, 1:] != IGNORED
    surprises = -logs[trained].gather(-1, labels[:, 1:][trained][:, None])
    balance = load_balancing_loss_func(outputs.router_logits, 4, 2, mask)
    return surprises.mean() + coefficient * balance
