"""Two real ranks under accelerate launch against one process, joined by id."""

import json
import shlex
import shutil
import subprocess
import sys

import datasets
import numpy as np
import pytest
from smoke_run import ROOT, SMOKE, run_environment, run_smoke, stages

from deita_train.plan.plan import make_plan

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


def test_a_selection_by_two_ranks_has_the_bits_of_one(undisturbed, tmp_path):
    artefact = stages(undisturbed)["select"]
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / artefact)
    options = [str(SMOKE), "--runs", str(tmp_path), "--set", "select.launch=cpu_ddp"]
    smaller = make_plan(SMOKE, ["select.launch=cpu_ddp", "select.budget=10"], tmp_path).cells[0].nodes["select"].id
    carry_out(printed_command(smaller, *options, "--set", "select.budget=10"))
    carry_out(printed_command(artefact, *options))
    # Both ranks went on from the smaller budget.
    metrics = json.loads((tmp_path / "store" / artefact / "metrics.json").read_text())
    assert metrics["walk_reused_from"] == smaller and metrics["walk_rows_reused"] >= 10
    manifests = [json.loads((r / "store" / artefact / "manifest.json").read_text()) for r in (undisturbed, tmp_path)]
    assert [(manifest["world_size"], manifest["device"]) for manifest in manifests] == [(1, "cpu"), (2, "cpu")]
    assert manifests[0]["content_digest"] == manifests[1]["content_digest"]
    traces = [datasets.load_from_disk(str(r / "store" / artefact / "trace")) for r in (undisturbed, tmp_path)]
    assert sum(value is not None for value in traces[0]["nearest_similarity"]) > 20
    for column in ("id", "selection_rank", "nearest_similarity", "blocked_by"):
        assert list(traces[0][column]) == list(traces[1][column])


# The other kinds and launches are compared without a run around them in test_training_ranks.py.
TRAININGS = [
    pytest.param("base", "base.pretrain", "cpu_ddp", marks=pytest.mark.faults),
    pytest.param("sft", "sft", "cpu_zero3"),
    pytest.param("dpo", "dpo", "cpu_zero3", marks=pytest.mark.faults),
]
PROMISED = {"cpu_ddp": "MULTI_GPU", "cpu_zero3": "DEEPSPEED"}


def printed_command(artefact, *arguments):
    """The line that `plan` prints for a stage, as a list that starts with this interpreter's accelerate."""
    plan = [sys.executable, "-m", "deita_train.cli", "plan", *arguments]
    printed = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in printed.splitlines() if line.endswith(f"--stage {artefact}"))
    program, *rest = shlex.split(line)
    assert program == "accelerate"
    return [sys.executable, "-m", "accelerate.commands.accelerate_cli", *rest]


def carry_out(command):
    answer = subprocess.run(
        command, env=run_environment(), cwd=ROOT, capture_output=True, text=True, timeout=250, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(("label", "section", "launch"), TRAININGS)
def test_a_training_on_two_ranks_has_the_losses_of_one(undisturbed, tmp_path, label, section, launch):
    """By hand, as `plan` prints it: the ranks prepare, train, check and publish without a run above them."""
    if launch == "cpu_zero3" and shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles a small op and there is no g++")
    artefact = stages(undisturbed)[label]
    shutil.copytree(undisturbed / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / artefact)
    command = printed_command(artefact, str(SMOKE), "--runs", str(tmp_path), "--set", f"{section}.launch={launch}")
    assert f"accelerate_configs/{launch}.yaml" in command
    carry_out(command)
    manifest = json.loads((tmp_path / "store" / artefact / "manifest.json").read_text())
    assert (manifest["world_size"], manifest["distributed_type"]) == (2, PROMISED[launch])
    one, two = (json.loads((r / "store" / artefact / "metrics.json").read_text()) for r in (undisturbed, tmp_path))
    assert one["steps"] == two["steps"] and one["parameters"] == two["parameters"]
    losses = [[entry["loss"] for entry in metrics["history"]] for metrics in (one, two)]
    assert len(losses[0]) >= 4
    np.testing.assert_allclose(losses[1], losses[0], atol=2e-3)
