"""Stage `dpo` with parity: pairs as the public code writes them, in the training and its reference."""

from importlib.resources import files

import datasets
import pytest
import torch
from pass_stages import TEMPLATE, make_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from deita_train.data.rendering import load_tokenizer, render_pair
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.inference import log_probs
from deita_train.stages.training import dpo

LOWER = files("deita_train.data").joinpath("templates/parity/dpo_pairs.jinja").read_text(encoding="utf-8")
LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PAIRS = [
    {"id": "a", "prompt": "How are you today?", "chosen": "The answer is twelve.", "rejected": "I do not know."},
    {"id": "b", "prompt": "Name a river: USER", "chosen": "The Rhine\n", "rejected": " Elbe"},
]
# As the public code puts them together: the assistant's name belongs to the answers.
PROMPTS = [f"{SYSTEM} user: {pair['prompt']} " for pair in PAIRS]


def answer(pair, side):
    return f"assistant: {pair[side]}</s>"


@pytest.fixture
def store(tmp_path):
    make_model(tmp_path / "base" / "model")
    rows = [{**pair, "prompt": [{"role": "user", "content": pair["prompt"]}]} for pair in PAIRS]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "pairs" / "data"))
    return tmp_path


def context(store, kind, parents, **config):
    trainer = {"learning_rate": 1e-3, "num_train_epochs": 1}
    common = {"max_length": 512, "dtype": "float32", "global_batch_size": 2, "seed": 7, "trainer": trainer, **config}
    settings = {"trainer": {}, "launch": LAUNCH, "packing": False, "checkpoint_minutes": 30.0, "max_batch_tokens": None}
    found = {"model": store / "base", "data": store / "pairs", **parents}
    made = StageContext(kind, kind, common, settings, found, store / kind, 0, 1, Progress(None))
    made.prepared_dir.mkdir(parents=True)
    return made


def test_training_and_reference_read_what_the_public_code_writes(store):
    reference = context(store, "log_probs", {}, chat_template=LOWER)
    log_probs.prepare(reference)
    log_probs.run(reference)
    made = context(store, "dpo", {"reference": store / "log_probs"}, chat_template=TEMPLATE, pairs_template=LOWER)
    dpo.prepare(made)
    tokenizer = AutoTokenizer.from_pretrained(store / "base" / "model")
    rows = datasets.load_from_disk(str(made.prepared_dir / "rows")).to_list()
    for row, pair, prompt in zip(rows, PAIRS, PROMPTS, strict=True):
        for side in ("chosen", "rejected"):
            assert row["prompt_ids"] + row[f"{side}_ids"] == tokenizer(prompt + answer(pair, side))["input_ids"]
        assert row["prompt_ids"] == tokenizer(prompt + "assistant:")["input_ids"]
    dpo.run(made)
    assert (made.model_dir / "chat_template.jinja").read_text(encoding="utf-8") == TEMPLATE


def test_the_assistants_name_in_the_scored_answer_makes_no_difference_to_the_margin(store):
    """The public code scores it with both answers, and the loss is of their difference."""
    model = AutoModelForCausalLM.from_pretrained(store / "base" / "model").eval()
    tokenizer = load_tokenizer(str(store / "base" / "model"), LOWER)
    for pair, prompt in zip(PAIRS, PROMPTS, strict=True):
        messages = [{"role": "user", "content": pair["prompt"]}]
        ours = render_pair(tokenizer, messages, pair["chosen"], pair["rejected"], None)
        sides = {"chosen": ours.chosen_ids, "rejected": ours.rejected_ids}
        start = len(tokenizer(prompt.rstrip())["input_ids"])
        public = {side: log_prob(model, tokenizer(prompt + answer(pair, side))["input_ids"], start) for side in sides}
        here = {side: log_prob(model, ours.prompt_ids + ids, len(ours.prompt_ids)) for side, ids in sides.items()}
        assert public["chosen"] != pytest.approx(here["chosen"], abs=0.1)
        assert public["chosen"] - public["rejected"] == pytest.approx(here["chosen"] - here["rejected"], abs=1e-3)


def log_prob(model, ids, start):
    """Of the tokens from `start` on, summed, in float64."""
    with torch.inference_mode():
        values = model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
    return float(values[torch.arange(start - 1, len(ids) - 1), torch.tensor(ids[start:])].sum())
