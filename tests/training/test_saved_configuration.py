"""What a training saves beside the weights is its base's, whatever the trainers set for themselves."""

import json
import math
import random

import datasets
import pytest
import torch
from conversation_loss import BATCH, SEED, TRAINER, ignore, make_rows, run
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from deita_train.data.rendering import RenderedPair, load_tokenizer
from deita_train.models.adapter_files import name_base
from deita_train.training.arguments import TrainingSettings
from deita_train.training.lora import merge_adapter
from deita_train.training.rows import PairRow, write_pair_rows
from deita_train.training.trainer_run import train

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# As Llama 2's chat models have it: transformers reads it, and refuses to write it once a token of it has changed.
SAMPLING = {"temperature": 0.9, "top_p": 0.6}


@pytest.fixture(scope="module")
def rows_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_rows(folder)
    return folder


@pytest.fixture
def folder(rows_folder, tmp_path):
    """Rows and a tokenizer; the model is each test's own."""
    (tmp_path / "rows").symlink_to(rows_folder / "rows")
    (tmp_path / "base").mkdir()
    for file in (rows_folder / "base").iterdir():
        if "token" in file.name or "template" in file.name:
            (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    return tmp_path


def make_base(folder, **settings):
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=259, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, **settings,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "base")


def edit(path, **changes):
    """Change a JSON file; None takes a key away."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def saved(path, file):
    return json.loads((path / file).read_text())


def preferences(folder):
    """Pairs, with the model's own log-probabilities as the reference's."""
    draw, model = random.Random(1), AutoModelForCausalLM.from_pretrained(folder / "base")
    rows = []
    for number in range(4):
        pair = RenderedPair(*([draw.randrange(3, 259) for _ in range(size)] for size in (5, 4, 6)), False)
        scores = [log_prob(model, pair.prompt_ids, answer) for answer in (pair.chosen_ids, pair.rejected_ids)]
        rows.append(PairRow(f"p{number}", pair, *scores))
    write_pair_rows(rows, folder / "pairs")
    return datasets.load_from_disk(str(folder / "pairs"))


def log_prob(model, prompt, answer):
    with torch.inference_mode():
        logs = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logs[len(prompt) + place - 1, token]) for place, token in enumerate(answer))


def train_pairs(folder, name, **trainer):
    """DPO, by default of one step; the outcome, with the model in `folder/name`."""
    settings = TrainingSettings({**TRAINER, "max_steps": 1, **trainer}, BATCH, SEED, 1, "NO", True, kind="dpo")
    base, out = str(folder / "base"), folder / name
    rows, tokenizer = preferences(folder), load_tokenizer(base)
    return train(base, tokenizer, rows, settings, out / "checkpoints", out / "model", ignore, ignore)


BASES = {
    # As LLaMA 3 and Mistral: trainers pad with the end of sequence, and an embedding of what pads is never trained.
    "without padding": ({"bos_token_id": 0, "eos_token_id": 1}, {"pad_token": None}),
    "another end than the tokenizer's": ({"bos_token_id": 0, "eos_token_id": 7, "pad_token_id": 2}, {}),
    "several ends": ({"bos_token_id": 5, "eos_token_id": [7, 8], "pad_token_id": 9}, {}),
}


@pytest.mark.parametrize(("name", "kind"), [*((name, "sft") for name in BASES), ("without padding", "dpo")])
def test_special_tokens_are_the_bases(folder, name, kind):
    config, tokenizer = BASES[name]
    make_base(folder, **config)
    edit(folder / "base" / "tokenizer_config.json", **tokenizer)
    if kind == "sft":
        run(folder, "sft", "per_token", max_steps=1)
    else:
        train_pairs(folder, "dpo")
    base = saved(folder / "base", "config.json")
    for left in (folder / kind / "model", folder / kind / "checkpoints" / "checkpoint-1"):
        assert {token: saved(left, "config.json").get(token) for token in TOKENS} == {
            token: base.get(token) for token in TOKENS
        }
        generation = saved(left, "generation_config.json")
        own = saved(folder / "base", "generation_config.json")
        assert {token: generation.get(token) for token in ("bos_token_id", "pad_token_id")} == {
            token: own.get(token) for token in ("bos_token_id", "pad_token_id")
        }
        # The model stops where its base does, and where the tokenizer's text ends.
        ends = generation["eos_token_id"]
        wanted = config["eos_token_id"]
        assert {*(ends if isinstance(ends, list) else [ends])} == {
            1,
            *(wanted if isinstance(wanted, list) else [wanted]),
        }


@pytest.mark.parametrize("kind", ["sft", "dpo", "merged"])
def test_settings_of_generation_are_the_bases_though_transformers_would_not_write_them(folder, kind):
    make_base(folder, bos_token_id=0, eos_token_id=7)
    edit(folder / "base" / "generation_config.json", **SAMPLING)
    if kind == "dpo":
        train_pairs(folder, "dpo")
    else:
        adapter = {"adapter": {"peft": {"r": 2}}} if kind == "merged" else {}
        run(folder, kind, "per_token", max_steps=1, **adapter)
    left = folder / kind / "model"
    if kind == "merged":
        name_base(left, str(folder / "base"), None)
        merge_adapter(left, folder / "whole", "float32")
        left = folder / "whole"
    generation = saved(left, "generation_config.json")
    assert {name: generation[name] for name in SAMPLING} == SAMPLING and "do_sample" not in generation
    AutoModelForCausalLM.from_pretrained(left).generate(torch.tensor([[5, 6]]), max_new_tokens=2)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_tokenizer_without_padding_and_without_an_end_pads_all_the_same(folder, kind):
    make_base(folder, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    losses = []
    for tokenizer in ({}, {"pad_token": None, "eos_token": None}):
        edit(folder / "base" / "tokenizer_config.json", **tokenizer)
        name = f"{kind}{len(losses)}"
        two = {"max_steps": 2}
        outcome = run(folder, name, "per_token", **two) if kind == "sft" else train_pairs(folder, name, **two)
        losses.append([entry["loss"] for entry in outcome.history])
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]


@pytest.mark.parametrize("disabled", [True, False])
def test_without_dropout_the_first_loss_of_dpo_is_ln_2(folder, disabled):
    """Of a model whose attention drops weights: a number, and no layer that trl would switch off."""
    make_base(folder, bos_token_id=0, eos_token_id=1, pad_token_id=2, attention_dropout=0.5)
    outcome = train_pairs(folder, "dpo", beta=5.0, disable_dropout=disabled)
    assert (abs(outcome.history[0]["loss"] - math.log(2)) < 1e-5) == disabled
    assert saved(folder / "dpo" / "model", "config.json")["attention_dropout"] == 0.5
