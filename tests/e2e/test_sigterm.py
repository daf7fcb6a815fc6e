"""SIGTERM to a run: the training at work leaves a checkpoint, the run ends with 143, and the same command continues."""

import json
import re
import signal
import subprocess
import time

import pytest
from smoke_run import ROOT, run_command, run_environment, run_smoke, stages
from test_kill import artefact_of

from deita_train.training.checkpoints import find_damage

# No checkpoint of its own before its end.
LONG = ("--set", "base.pretrain.trainer.num_train_epochs=4", "--set", "base.pretrain.trainer.save_steps=1000")
UNTIL = ("--until", "base")


def stop_after_some_steps(runs, artefact, *arguments):
    """Start a run, end it by SIGTERM while its first training is at work, and return its exit code and its output."""
    process = subprocess.Popen(
        run_command(runs, *arguments), env=run_environment(), cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    progress = runs / "store" / ".work" / artefact / "progress.json"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if progress.exists() and '"steps"' in progress.read_text():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    return process.returncode, output


def check_stop(runs, *launch):
    arguments = (*LONG, *launch, *UNTIL)
    artefact = artefact_of(runs, "base", *arguments)
    code, output = stop_after_some_steps(runs, artefact, *arguments)
    assert code == 143, output
    assert "stopping: a training in progress saves a checkpoint first" in output
    work = runs / "store" / ".work" / artefact
    (checkpoint,) = (work / "checkpoints").glob("checkpoint-*")
    assert find_damage(checkpoint) is None
    error = json.loads((work / "error.json").read_text())
    assert error["stopped"] and error["message"].startswith("stopped as asked after step ")
    plan = subprocess.run(
        [*run_command(runs, *arguments)[:3], "plan", *run_command(runs, *arguments)[4:]],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"continues: an\s+earlier", plan.stdout), plan.stdout
    answer = run_smoke(runs, *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    metrics = json.loads((runs / "store" / artefact / "metrics.json").read_text())
    assert metrics["resumed_from_step"] == int(checkpoint.name.rsplit("-", 1)[1])
    return metrics, json.loads((runs / "store" / artefact / "manifest.json").read_text())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    runs = tmp_path_factory.mktemp("uninterrupted")
    answer = run_smoke(runs, *LONG, *UNTIL)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    artefact = stages(runs)["base"]
    folder = runs / "store" / artefact
    return json.loads((folder / "metrics.json").read_text()), json.loads((folder / "manifest.json").read_text())


@pytest.mark.faults
def test_a_run_that_is_stopped_ends_with_the_same_bytes(uninterrupted, tmp_path):
    metrics, manifest = check_stop(tmp_path)
    assert [entry["loss"] for entry in metrics["history"]] == [entry["loss"] for entry in uninterrupted[0]["history"]]
    assert manifest["content_digest"] == uninterrupted[1]["content_digest"]


@pytest.mark.faults
def test_two_ranks_stop_together(uninterrupted, tmp_path):
    """They are told by a file: the launcher would end them half a minute after the signal."""
    metrics, manifest = check_stop(tmp_path, "--set", "base.pretrain.launch=cpu_ddp")
    assert manifest["world_size"] == 2
    losses = [[entry["loss"] for entry in of["history"]] for of in (metrics, uninterrupted[0])]
    assert len(losses[0]) == len(losses[1])
    assert max(abs(one - other) for one, other in zip(*losses, strict=True)) < 2e-3
