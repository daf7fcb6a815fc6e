"""A run of every stage: what it leaves, and that the same command again does nothing."""

import json
import math
import shutil

import datasets
import pytest
import torch
from smoke_run import command_here, digests, run_smoke_here, selected_ids, stages
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.errors import UserError

LABELS = {
    "pretraining_data", "base", "pool", "train_scorer.complexity", "train_scorer.quality", "score.complexity",
    "score.quality", "embed", "select", "sft", "dpo_data", "reference", "dpo", "heldout_data", "evaluate.base",
    "evaluate.sft", "evaluate.dpo", "heldout_pairs", "evaluate_pairs.base", "evaluate_pairs.sft", "evaluate_pairs.dpo",
}  # fmt: skip


def test_every_stage_publishes_with_a_balanced_manifest(undisturbed):
    found = stages(undisturbed)
    assert set(found) == LABELS
    for artefact in found.values():
        manifest = json.loads((undisturbed / "store" / artefact / "manifest.json").read_text())
        assert manifest["rows_in"] == manifest["rows_out"] + sum(manifest["drops"].values())
        assert manifest["threads"] == 1 and manifest["world_size"] == 1
        assert len(manifest["content_digest"]) == 64
        assert (undisturbed / "store" / artefact / "metrics.json").exists()
    assert not list((undisturbed / "store" / ".work").iterdir())
    assert not list((undisturbed / "store").glob("*/*/cache-*")), "a stage wrote into a published table"


def test_the_selection_says_what_became_of_every_row(undisturbed):
    folder = undisturbed / "store" / stages(undisturbed)["select"]
    trace = datasets.load_from_disk(str(folder / "trace"))
    kept = [row for row in trace if row["selection_rank"] is not None]
    rejected = [row for row in trace if row["blocked_by"] is not None]
    assert len(trace) == 240
    assert sorted(row["selection_rank"] for row in kept) == list(range(len(kept)))
    assert {row["blocked_by"] for row in rejected} <= {row["id"] for row in kept}
    assert all(row["nearest_similarity"] > 0.95 for row in rejected)
    assert [row["id"] for row in sorted(kept, key=lambda row: row["selection_rank"])] == selected_ids(undisturbed)


@pytest.mark.parametrize("label", ["sft", "dpo"])
def test_the_tuned_model_is_a_plain_one_with_the_runs_template(undisturbed, label):
    folder = undisturbed / "smoke" / label
    assert folder.is_symlink() and folder.resolve() == undisturbed / "store" / stages(undisturbed)[label] / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("USER: Hi ASSISTANT:") and text.startswith(tokenizer.bos_token)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    assert model(**ids).logits.isfinite().all()
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja",
    }  # fmt: skip


def test_the_held_out_pairs_are_measured_as_a_plain_model_would(undisturbed):
    """Accuracy, margin and reward from the published models, one sequence at a time, by the template's own text."""
    pairs = list(datasets.load_from_disk(str(undisturbed / "store" / stages(undisturbed)["heldout_pairs"] / "data")))
    margins = {}
    for label in ("sft", "dpo"):
        folder = undisturbed / "store" / stages(undisturbed)[label] / "model"
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        margins[label] = [
            log_prob(model, tokenizer, row["prompt"], row["chosen"])
            - log_prob(model, tokenizer, row["prompt"], row["rejected"])
            for row in pairs
        ]
        got = metrics(undisturbed, f"evaluate_pairs.{label}")["pairs"]
        assert got["rows"] == len(pairs) == 40
        assert got["accuracy"] == sum(margin > 0 for margin in margins[label]) / 40
        assert got["margin"] == pytest.approx(sum(margins[label]) / 40, abs=1e-3)
    rewards = [0.1 * (after - before) for after, before in zip(margins["dpo"], margins["sft"], strict=True)]
    got = metrics(undisturbed, "evaluate_pairs.dpo")
    assert got["rewards"]["margin"] == pytest.approx(sum(rewards) / 40, abs=1e-3)
    assert got["rewards"]["accuracy"] == pytest.approx(sum(reward > 0 for reward in rewards) / 40, abs=0.03)
    assert got["before"] == metrics(undisturbed, "evaluate_pairs.sft")["pairs"]


def log_prob(model, tokenizer, prompt, answer):
    head = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    whole = f"{head} {answer}{tokenizer.eos_token}"
    start = len(tokenizer(head, add_special_tokens=False)["input_ids"])
    ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return float(log_probs.gather(1, ids[0, 1:, None])[start - 1 :].double().sum())


def metrics(runs, label):
    return json.loads((runs / "store" / stages(runs)[label] / "metrics.json").read_text())


def test_dpo_starts_at_its_reference(undisturbed):
    """With the policy still equal to the reference the loss is ln 2 and every reward is nought."""
    first = metrics(undisturbed, "dpo")["history"][0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["reward_margin"] == pytest.approx(0, abs=1e-4)


def test_the_report_is_one_page_that_fetches_nothing(undisturbed):
    page = (undisturbed / "smoke" / "report" / "report.html").read_text()
    assert "<svg" in page and "src=" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert "Similarity" in page or "similarity" in page
    assert "sft and dpo lead to the models of the base run" in page


@pytest.mark.parametrize("label", ["sft", "dpo"])
def test_the_lines_of_a_model_card_load_the_model(undisturbed, label, capsys):
    card = (undisturbed / "smoke" / "report" / "cards" / f"{label}.md").read_text()
    lines = card.split("```python\n")[1].split("```")[0]
    model = undisturbed / "store" / stages(undisturbed)[label] / "model"
    exec(lines.replace("path/to/this/model", str(model)).replace("max_new_tokens=100", "max_new_tokens=3"), {})  # noqa: S102
    assert capsys.readouterr().out.endswith("\n")


def test_the_store_is_as_it_was_published_and_all_of_it_is_in_use(undisturbed):
    number = len(list((undisturbed / "store").glob("*/manifest.json")))
    runs = ("--runs", str(undisturbed))
    assert f"{number} of {number} artefacts are as they were published." in command_here("store", "verify", *runs)
    assert "All are in use." in command_here("store", "ls", *runs)
    assert "Nothing to remove" in command_here("store", "gc", *runs)


def test_an_artefact_of_an_earlier_version_is_compared_as_a_whole(undisturbed, tmp_path):
    artefact = stages(undisturbed)["select"]
    folder = shutil.copytree(undisturbed / "store" / artefact, tmp_path / "store" / artefact)
    (folder / "digests.json").unlink()
    assert "1 of 1 artefacts" in command_here("store", "verify", "--runs", str(tmp_path))
    (file,) = (folder / "trace").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:1000])
    answer = CliRunner().invoke(app, ["store", "verify", "--runs", str(tmp_path)])
    assert "differ from the manifest's digest" in answer.output and isinstance(answer.exception, UserError)


def test_the_same_command_again_changes_nothing(undisturbed):
    before = digests(undisturbed)
    times = {path: path.stat().st_mtime_ns for path in (undisturbed / "store").glob("*/manifest.json")}
    printed = run_smoke_here(undisturbed)
    assert printed.count("already done") == len(LABELS)
    assert digests(undisturbed) == before
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "store").glob("*/manifest.json")} == times
