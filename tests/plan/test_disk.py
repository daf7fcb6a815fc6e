"""What a plan says of the disk that its trainings want."""

import io
import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from rich.console import Console
from tiny_recipe import a_manifest, no_gpus, plan, recipe, write  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.results import print_plan
from deita_train.plan import inputs
from deita_train.plan.disk import disk_lines, in_bytes, plan_disk
from deita_train.plan.plan import planned_stages

pytestmark = pytest.mark.usefixtures("no_gpus")
# The miniature as the schema has it: 64 wide, 2 layers, 2,000 tokens.
WEIGHTS = 2 * 2000 * 64 + 2 * (4 * 64**2 + 3 * 64 * 192 + 2 * 64) + 64
SHAPE = {
    "model_type": "llama", "vocab_size": 2000, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip


def disk(made):
    return plan_disk(made, planned_stages(made))


def only_sft(**changes):
    data = recipe("base", "pool", "scorers", "embedding", "select", "evaluate", **changes)
    data["sft"]["data"] = {"builtin": "quickstart", "rows": 20}
    return data


def test_the_trainings_follow_one_another_and_their_models_stay(tmp_path):
    found = disk(plan(tmp_path, recipe()))
    ((size, labels),) = found.sizes.items()
    assert (size.trained, size.checkpoint, size.published) == (WEIGHTS, 12 * WEIGHTS, 4 * WEIGHTS)
    assert labels == ["base", "train_scorer.complexity", "train_scorer.quality", "sft"]
    # The last one's three checkpoints beside the three models before it.
    assert found.at_most == 3 * 12 * WEIGHTS + 3 * 4 * WEIGHTS
    assert found.unknown == {} and found.fits
    assert abs(found.free - shutil.disk_usage(tmp_path).free) < 1e9


def test_cells_of_a_sweep_count_each(tmp_path):
    found = disk(plan(tmp_path, recipe(sweep={"select.seed,sft.seed": [1, 2, 3], "until": "sft"})))
    (labels,) = found.sizes.values()
    assert labels.count("sft") == 4
    assert found.at_most == 36 * WEIGHTS + 6 * 4 * WEIGHTS


def test_what_is_done_is_not_counted_and_what_is_there_not_again(tmp_path):
    made = plan(tmp_path, only_sft(base=recipe()["base"]))
    base, sft = (made.cells[0].nodes[label] for label in ("base", "sft"))
    made.store.work_path(base.id).mkdir(parents=True)
    made.store.publish(a_manifest(base), {})
    checkpoint = made.store.work_path(sft.id) / "checkpoints" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"x" * 5000)
    found = disk(made)
    assert found.at_most == 36 * WEIGHTS - 5000
    assert [label for labels in found.sizes.values() for label in labels] == ["sft"]


@pytest.mark.parametrize(
    ("launch", "checkpoint", "published"),
    [
        ("zero3", 14, 2),
        ("zero2", 16, 2),
        ("zero1", 16, 2),
        ("fsdp2", 16, 4),
        ("fsdp1", 16, 4),
        ("ddp", 12, 4),
        ("multi_gpu", 12, 4),
    ],
)
def test_a_launch_decides_what_a_checkpoint_holds(tmp_path, launch, checkpoint, published):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(SHAPE))
    path = write(tmp_path, only_sft(sft__model=str(tmp_path / "m"), sft__launch=launch))
    answer = CliRunner().invoke(app, ["plan", str(path), "--runs", str(tmp_path / "runs"), "--gpus", "4"])
    assert answer.exit_code == 0, answer.output
    line = next(line for line in answer.stdout.splitlines() if line.startswith("  sft: "))
    words = f"{in_bytes(checkpoint * WEIGHTS)}, then a model of {in_bytes(published * WEIGHTS)}"
    assert line == f"  sft: {WEIGHTS:,} trained parameters, up to 3 checkpoints of {words}"


def test_a_model_that_is_not_here_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "resolve_commit", lambda *_: "c" * 40)
    lines = list(disk_lines_of(plan(tmp_path, only_sft(sft__model="org/model", sft__chat_template="vicuna_v1.1"))))
    assert lines == ["  sft: unknown, because org/model is not here yet"]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "gpt_neox"}')
    (line,) = disk_lines_of(plan(tmp_path, only_sft(sft__model=str(tmp_path / "m"))))
    assert line == "  sft: unknown, because the weights of a gpt_neox do not follow from its config.json"


def test_a_model_in_the_hubs_cache_is_read_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "resolve_commit", lambda *_: "c" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--org--model" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(SHAPE))
    ((size, labels),) = disk(
        plan(tmp_path, only_sft(sft__model="org/model", sft__chat_template="vicuna_v1.1"))
    ).sizes.items()
    assert (size.trained, labels) == (WEIGHTS, ["sft"])
    # Of two files of weights one is not here: the configuration tells the rest.
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (size,) = disk(plan(tmp_path, only_sft(sft__model="org/model", sft__chat_template="vicuna_v1.1"))).sizes
    assert size.trained == WEIGHTS


def disk_lines_of(made):
    return disk_lines(made, planned_stages(made))


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_too_small_a_disk_is_a_warning(tmp_path, monkeypatch, command):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=48 * WEIGHTS - 2_500_000))
    path = write(tmp_path, recipe())
    answer = CliRunner().invoke(app, [command, str(path), "--runs", str(tmp_path / "runs")])
    assert answer.exit_code == 0, answer.output
    assert f"warning: {tmp_path / 'runs'} lacks 2.50 MB. Free them, or name a folder on" in answer.stdout
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=48 * WEIGHTS))
    answer = CliRunner().invoke(app, [command, str(path), "--runs", str(tmp_path / "runs")])
    assert "warning" not in answer.stdout and "Disk for checkpoints and models: at most " in answer.stdout


def test_a_plan_without_a_training_says_nothing_of_the_disk(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    print_plan(console, plan(tmp_path, recipe(), until="pool"))
    assert "Disk" not in console.file.getvalue()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (782_208, "782 kB"), (86_902_784_000, "86.9 GB")],
)
def test_bytes_as_text(number, text):
    assert in_bytes(number) == text
