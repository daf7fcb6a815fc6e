"""Scorer training: what is learnt of either form of the data, whole models and adapters, and the held-out measures."""

import json

import datasets
import numpy as np
import pytest
import torch
from pass_stages import make_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from deita_train.stages.checks import check_artefact
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.training import train_scorer

LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}
# As published: both end in a space, and the first has two before its line end.
PROMPTS = {
    "complexity": "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
    "##Query: {instruction}  \n##Complexity: ",
    "quality": "You are a helpful assistant. Please identify the quality score of the Response corresponding to the "
    "Question. \n #Question#:\n{instruction}\n#Response#:\n{response} \n##Quality: ",
}
ROWS = [
    {"instruction": f"How are you {'today ' * score}?", "response": "The answer. " * score, "score": score}
    for score in (1, 6, 2, 5, 3, 4) * 4
]


def prompt(dimension, row):
    return PROMPTS[dimension].format(**row)


def written(folder, dimension, rows, published):
    """A data file of the rows, as the public data holds them or with the texts in columns of their own."""
    if published:
        rows = [{"input": prompt(dimension, row), "target": str(row["score"])} for row in rows]
    path = folder / "data.json"
    path.write_text(json.dumps(rows))
    return {"dataset": str(path)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_model(folder / "model")
    return folder


def context(model, work, dimension, published, **config):
    identity = {"split": None, "label": None}
    location = written(work, dimension, ROWS, published)
    trainer = {"learning_rate": 1e-2, "num_train_epochs": 4, "lr_scheduler_type": "constant"}
    common = {"dimension": dimension, "data": identity, "heldout": identity, "max_length": 1024}
    common |= {"global_batch_size": 6, "seed": 7, "trainer": trainer}
    settings = {
        "trainer": {},
        "launch": LAUNCH,
        "packing": False,
        "checkpoint_minutes": 30.0,
        "data": location,
        "heldout": location,
    }
    parents = {"model": model}
    made = StageContext(
        "train_scorer", "train_scorer", {**common, **config}, settings, parents, work / "work", 0, 1, Progress(None)
    )
    made.prepared_dir.mkdir(parents=True)
    return made


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("dimension", PROMPTS)
def test_the_loss_is_on_the_digit_and_the_end_alone(model, tmp_path, dimension, published):
    made = context(model, tmp_path, dimension, published)
    train_scorer.prepare(made)
    tokenizer = AutoTokenizer.from_pretrained(model / "model")
    rows = datasets.load_from_disk(str(made.prepared_dir / "rows"))
    assert len(rows) == len(ROWS)
    for row, source in zip(rows, ROWS, strict=True):
        prompt_ids = tokenizer(prompt(dimension, source))["input_ids"]
        answer = tokenizer(f"{source['score']}</s>", add_special_tokens=False)["input_ids"]
        assert answer == [tokenizer.convert_tokens_to_ids(str(source["score"])), 1]
        assert row["input_ids"] == prompt_ids + answer
        assert row["labels"] == [-100] * len(prompt_ids) + answer


@pytest.mark.parametrize(
    "how", [{}, {"peft": {"r": 8}, "merge_adapter": False}, {"peft": {"r": 8}, "merge_adapter": True}]
)
def test_a_whole_model_and_an_adapter_learn_and_are_measured(model, tmp_path, how):
    made = context(model, tmp_path, "quality", published=True, **how)
    train_scorer.prepare(made)
    result = train_scorer.run(made)
    left = {part: getattr(result, part) for part in ("rows_in", "rows_out", "drops")}
    left["metrics"] = {**result.metrics, **train_scorer.finish(made)}
    check_artefact(made, left)
    assert (made.model_dir / "adapter_config.json").exists() is (how.get("merge_adapter") is False)
    losses = [entry["loss"] for entry in left["metrics"]["history"]]
    assert losses[-1] < losses[0] - 1, "the untrained model knows neither digit nor end"
    heldout, scores = left["metrics"]["heldout"], one_by_one(made.model_dir)
    labels = np.array([row["score"] for row in ROWS], dtype=np.float64)
    assert heldout["rows"] == 24
    assert heldout["bias"] == pytest.approx(float((scores - labels).mean()), abs=1e-4)
    assert [entry["rows"] for entry in heldout["by_label"]] == [4] * 6
    means = [float(scores[labels == label].mean()) for label in range(1, 7)]
    assert [entry["mean_score"] for entry in heldout["by_label"]] == pytest.approx(means, abs=1e-4)


def one_by_one(folder):
    """The expectation over the six digits after each prompt, by plain transformers, float64 [24]."""
    tokenizer, scorer = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    digits = tokenizer.convert_tokens_to_ids(list("123456"))
    scores = []
    for row in ROWS:
        with torch.inference_mode():
            logits = scorer(**tokenizer(prompt("quality", row), return_tensors="pt")).logits[0, -1, digits].double()
        scores.append(float((logits.softmax(-1) * torch.arange(1, 7)).sum()))
    return np.array(scores)
