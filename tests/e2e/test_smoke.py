"""A run of every stage: what it leaves, and that the same command again does nothing."""

import json

import datasets
from smoke_run import digests, run_smoke, selected_ids, stages
from transformers import AutoModelForCausalLM, AutoTokenizer

LABELS = {
    "pretraining_data", "base", "pool", "train_scorer.complexity", "train_scorer.quality", "score.complexity",
    "score.quality", "embed", "select", "sft", "heldout_data", "evaluate_before", "evaluate",
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


def test_the_tuned_model_is_a_plain_one_with_the_runs_template(undisturbed):
    folder = undisturbed / "store" / stages(undisturbed)["sft"] / "model"
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


def test_the_report_is_one_page_that_links_to_nothing(undisturbed):
    page = (undisturbed / "smoke" / "report" / "report.html").read_text()
    assert "<svg" in page and "src=" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert "Similarity" in page or "similarity" in page


def test_the_same_command_again_changes_nothing(undisturbed):
    before = digests(undisturbed)
    times = {path: path.stat().st_mtime_ns for path in (undisturbed / "store").glob("*/manifest.json")}
    answer = run_smoke(undisturbed)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("done before") == len(LABELS)
    assert digests(undisturbed) == before
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "store").glob("*/manifest.json")} == times
