"""DPO on real preference pairs, in the columns of UltraFeedback and in ShareGPT's, from the smoke run's SFT model."""

import json
import shutil

import datasets
import pytest
from smoke_run import run_smoke_here, stages

FILES = {"real_preferences.jsonl": 510, "real_preferences_sharegpt.json": 300}


@pytest.mark.parametrize(("name", "num_rows"), FILES.items())
def test_dpo_trains_on_real_pairs(shared, undisturbed, tmp_path, name, num_rows):
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    preferences = f"dpo.preferences={{dataset: {shared / 'data' / name}, sample: 48, seed: 1}}"
    run_smoke_here(tmp_path, "--until", "dpo", "--set", preferences, "--set", "dpo.trainer.max_length=512")
    made = stages(tmp_path)
    account = json.loads((tmp_path / "store" / made["dpo_data"] / "manifest.json").read_text())
    assert account["rows_in"] == num_rows and account["rows_out"] == 48
    assert account["drops"]["not_sampled"] == num_rows - sum(
        count for reason, count in account["drops"].items() if reason != "not_sampled"
    ) - 48  # fmt: skip
    reference = datasets.load_from_disk(str(tmp_path / "store" / made["reference"] / "data"))
    assert len(reference) == 48
    # A prompt that fills max_length leaves an answer without tokens.
    assert all((row["chosen_log_prob"] < 0) == (row["chosen_tokens"] > 0) for row in reference)
    metrics = json.loads((tmp_path / "store" / made["dpo"] / "metrics.json").read_text())
    assert metrics["train_rows"] + metrics["rows_without_loss"] == 48
    assert metrics["history"][0]["loss"] == pytest.approx(0.6931, abs=1e-3)
