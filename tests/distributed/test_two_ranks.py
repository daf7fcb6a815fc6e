"""Stages on two ranks against one process, joined by id: launched by a run or by hand, or forked."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import datasets
import numpy as np
import pytest
from forked_ranks import fork_ranks, launch_environment
from smoke_run import ROOT, SMOKE, command_here, copy_without, run_environment, run_smoke_here, stages

from deita_train.cli import main
from deita_train.plan.plan import make_plan

COLUMNS = {"score.complexity": "complexity_scores", "score.quality": "quality_scores", "embed": "embedding"}
SECTIONS = {"score.complexity": "scorers.complexity", "score.quality": "scorers.quality", "embed": "embedding"}


@pytest.fixture(scope="module")
def two_ranks(undisturbed, tmp_path_factory):
    """By the label of a pass: the undisturbed run's models and pool, with that pass made again by two ranks."""
    made = {}

    def of(label):
        if label not in made:
            made[label] = tmp_path_factory.mktemp("two_ranks")
            copy_without(undisturbed, made[label], label, "select")
            run_smoke_here(made[label], "--until", "select", "--set", f"{SECTIONS[label]}.launch=cpu_ddp")
        return made[label]

    return of


def table(runs, artefact, column):
    rows = datasets.load_from_disk(str(runs / "store" / artefact / "data"))
    return dict(zip(rows["id"], rows[column], strict=True))


# Two forked ranks of every pass are killed and continued in test_pass_kills.py; one launch stands here for all.
PASSES = [
    pytest.param("score.complexity", marks=pytest.mark.faults),
    pytest.param("score.quality", marks=pytest.mark.faults),
    "embed",
]


@pytest.mark.parametrize("label", PASSES)
def test_two_ranks_agree_with_one_by_id(undisturbed, two_ranks, label):
    runs, artefact, column = two_ranks(label), stages(undisturbed)[label], COLUMNS[label]
    manifest = json.loads((runs / "store" / artefact / "manifest.json").read_text())
    assert manifest["world_size"] == 2
    one, two = table(undisturbed, artefact, column), table(runs, artefact, column)
    assert one.keys() == two.keys() and len(one) == 240
    for row_id, values in one.items():
        expected = np.array(values, dtype=np.float64)
        np.testing.assert_allclose(np.array(two[row_id], dtype=np.float64), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("label", PASSES)
def test_the_selection_is_the_same(undisturbed, two_ranks, label):
    artefact = stages(undisturbed)["select"]
    folders = [runs / "store" / artefact / "data" for runs in (undisturbed, two_ranks(label))]
    kept = [list(datasets.load_from_disk(str(folder))["id"]) for folder in folders]
    assert kept[0] == kept[1] and len(kept[0]) > 1


def test_a_selection_by_two_ranks_has_the_bits_of_one(processes, undisturbed, tmp_path):
    artefact = stages(undisturbed)["select"]
    copy_without(undisturbed, tmp_path, "select")
    options = [str(SMOKE), "--runs", str(tmp_path), "--set", "select.launch=cpu_ddp"]
    smaller = make_plan(SMOKE, ["select.launch=cpu_ddp", "select.budget=10"], tmp_path).cells[0].nodes["select"].id
    fork_printed(processes, tmp_path, smaller, *options, "--set", "select.budget=10")
    fork_printed(processes, tmp_path, artefact, *options)
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
    """The line that `plan --stages` prints for a stage, as a list that starts with this interpreter's accelerate."""
    line = next(
        line
        for line in command_here("plan", *arguments, "--stages").splitlines()
        if line.endswith(f"--stage {artefact}")
    )
    program, *rest = shlex.split(line)
    assert program == "accelerate"
    return [sys.executable, "-m", "accelerate.commands.accelerate_cli", *rest]


def fork_printed(processes, folder, artefact, *arguments):
    """Carry out the line that `plan --stages` prints for a stage on two forked ranks, in place of the launcher's."""
    command = printed_command(artefact, *arguments)
    assert "accelerate_configs/cpu_ddp.yaml" in command
    stage = command[command.index("deita_train.cli") + 1 :]
    log, environment = folder / f"{artefact}.log", launch_environment(ROOT / "accelerate_configs" / "cpu_ddp.yaml")
    assert fork_ranks(processes, run_command_line, (stage,), 2, log, environment) == [0, 0], log.read_text()


def run_command_line(arguments):
    """What a forked rank does."""
    os.chdir(ROOT)
    sys.argv = ["deita-train", *arguments]
    main()


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
    copy_without(undisturbed, tmp_path, label)
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
