"""Rehearsals of launches and endpoints that no shipped recipe has, and the command's own words."""

import json
import shutil

import pytest
from rehearsal_parts import rehearsed
from tiny_recipe import no_gpus  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.uploads import find_upload
from deita_train.errors import UserError

pytestmark = pytest.mark.usefixtures("offline", "no_gpus")
SFT = {
    "model": "my_model",
    "data": {"dataset": "my_pool.jsonl"},
    "global_batch_size": 64,
    "trainer": {"learning_rate": 1e-3, "num_train_epochs": 3},
}


def write(folder, data):
    (folder / "mine.yaml").write_text(json.dumps({"name": "mine", **data}))
    return folder / "mine.yaml"


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launch", ["fsdp2", "ddp", "zero1"])
def test_a_launch_on_gpus_trains_on_two_ranks_of_its_own_kind(launch, own_files):
    if launch == "zero1" and shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles a small op and there is no g++")
    peft = {"r": 4, "target_modules": "all-linear"}
    _, done = rehearsed(write(own_files, {"sft": {**SFT, "launch": launch, "peft": peft}}), own_files / "runs")
    node = done.plan.cells[0].nodes["sft"]
    assert done.outcome.error is None and done.plan.store.manifest(node.id).world_size == 2
    with pytest.raises(UserError, match="is a rehearsal: its models are miniatures"):
        find_upload(done.plan.run_dir, "sft", None)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_judges_are_asked_on_loopback_by_the_client_of_the_real_run(own_files, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    judge = {"base_url": "https://api.openai.com/v1", "model": "gpt", "price": {"input": 1.0, "output": 1.0}}
    data = {
        "sft": {**SFT, "trainer": {"max_steps": 1}},
        "llm": {"judge": judge},
        "evaluate": {
            "models": ["sft"],
            "mt_bench": {"questions": {"dataset": "HuggingFaceH4/mt_bench_prompts"}, "judge": "judge"},
            "alpaca_eval": {
                "questions": {"dataset": "tatsu-lab/alpaca_eval", "data_files": "alpaca_eval.json"},
                "judge": "judge",
            },
            "judged": {"questions": {"builtin": "everyday", "rows": 8}, "judge": "judge"},
        },
    }
    _, done = rehearsed(write(own_files, data), own_files / "runs")
    assert done.outcome.error is None
    nodes = done.plan.cells[0].nodes
    for label in ("mt_bench.sft", "alpaca_eval.sft", "judged.sft"):
        spending = done.plan.store.metrics(nodes[label].id)["spending"]
        assert spending["calls"] > 0 and spending["failures"] == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rehearse", "--fresh", "sft"], "--fresh: a rehearsal begins anew each time"),
        (["--rehearse", "--cell", "0"], "--cell: a rehearsal begins anew each time"),
        (["--gpus", "2"], "--gpus: a run uses the GPUs that this machine has"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words, own_files):
    path = write(own_files, {"sft": SFT})
    answer = CliRunner().invoke(app, ["run", str(path), *options])
    assert isinstance(answer.exception, UserError) and words in str(answer.exception)
    assert not (own_files / "runs").exists()


def test_the_gpus_of_the_real_run_decide_whether_its_batch_fits(own_files):
    path = write(own_files, {"sft": {**SFT, "launch": "zero3", "global_batch_size": 6}})
    answer = CliRunner().invoke(app, ["run", str(path), "--rehearse", "--gpus", "4"])
    assert isinstance(answer.exception, UserError)
    assert f"{path}:1: sft.global_batch_size: 6 is not a multiple of 4 (4 ranks)" in str(answer.exception)
