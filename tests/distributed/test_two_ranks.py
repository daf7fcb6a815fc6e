"""Two real ranks under accelerate launch against one process, joined by id."""

import json
import shutil
import subprocess
import sys

import datasets
import numpy as np
import pytest
from smoke_run import ROOT, SMOKE, run_environment, run_smoke, stages

TWO_RANKS = [
    argument
    for section in ("scorers.complexity", "scorers.quality", "embedding")
    for argument in ("--set", f"{section}.launch=cpu_ddp")
]
PASSES = {"score.complexity": "complexity_scores", "score.quality": "quality_scores", "embed": "embedding"}


@pytest.fixture(scope="module")
def two_ranks(undisturbed, tmp_path_factory):
    """The undisturbed run's models and pool, scored, embedded and selected again by two ranks."""
    runs = tmp_path_factory.mktemp("two_ranks")
    shutil.copytree(undisturbed / "store", runs / "store")
    record = json.loads((undisturbed / "smoke" / "stages.json").read_text())
    for label in (*PASSES, "select"):
        shutil.rmtree(runs / "store" / record["cells"][0]["stages"][label])
    answer = run_smoke(runs, "--until", "select", *TWO_RANKS)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return runs, record["cells"][0]["stages"]


def table(runs, artefact, column):
    rows = datasets.load_from_disk(str(runs / "store" / artefact / "data"))
    return dict(zip(rows["id"], rows[column], strict=True))


@pytest.mark.parametrize(("label", "column"), PASSES.items())
def test_two_ranks_agree_with_one_by_id(undisturbed, two_ranks, label, column):
    runs, ids = two_ranks
    manifest = json.loads((runs / "store" / ids[label] / "manifest.json").read_text())
    assert manifest["world_size"] == 2
    one, two = table(undisturbed, ids[label], column), table(runs, ids[label], column)
    assert one.keys() == two.keys() and len(one) == 240
    for row_id, values in one.items():
        expected = np.array(values, dtype=np.float64)
        np.testing.assert_allclose(np.array(two[row_id], dtype=np.float64), expected, rtol=0, atol=1e-5)


def test_the_selection_is_the_same(undisturbed, two_ranks):
    runs, ids = two_ranks
    kept = [list(datasets.load_from_disk(str(r / "store" / ids["select"] / "data"))["id"]) for r in (undisturbed, runs)]
    assert kept[0] == kept[1] and len(kept[0]) > 1


@pytest.mark.parametrize(("launch", "distributed_type"), [("cpu_ddp", "MULTI_GPU"), ("cpu_zero3", "DEEPSPEED")])
def test_a_training_on_two_ranks_has_the_losses_of_one(undisturbed, tmp_path, launch, distributed_type):
    """By hand, as `plan` prints it: the ranks prepare, train, check and publish without a run above them."""
    if distributed_type == "DEEPSPEED" and shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles a small op and there is no g++")
    base = stages(undisturbed)["base"]
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / base)
    arguments = [str(SMOKE), "--runs", str(tmp_path), "--set", f"base.pretrain.launch={launch}", "--stage", base]
    config = ROOT / "accelerate_configs" / f"{launch}.yaml"
    accelerate = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0"]
    answer = subprocess.run(
        [*accelerate, "--config_file", str(config), "-m", "deita_train.cli", "stage", *arguments],
        env=run_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    manifest = json.loads((tmp_path / "store" / base / "manifest.json").read_text())
    assert (manifest["world_size"], manifest["distributed_type"]) == (2, distributed_type)
    one, two = (json.loads((r / "store" / base / "metrics.json").read_text()) for r in (undisturbed, tmp_path))
    assert one["steps"] == two["steps"] and one["parameters"] == two["parameters"]
    losses = [[entry["loss"] for entry in metrics["history"]] for metrics in (one, two)]
    assert len(losses[0]) > 10
    np.testing.assert_allclose(losses[1], losses[0], atol=2e-3)
