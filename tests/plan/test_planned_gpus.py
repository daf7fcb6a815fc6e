"""Planning on a machine without GPUs for machines that have some."""

import pytest
from tiny_recipe import no_gpus, recipe, write  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.errors import UserError
from deita_train.plan import launch
from deita_train.plan.plan import make_plan

pytestmark = pytest.mark.usefixtures("no_gpus")
ON_GPUS = {"sft__launch": "zero2", "scorers__quality__train__launch": "zero3_offload"}


def ids(plan):
    return [node.id for node in plan.nodes]


def launches(plan):
    return {node.label: node.runtime["launch"] for node in plan.nodes if "launch" in node.runtime}


def command_line(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)


def test_the_keys_are_those_of_a_machine_that_has_them(tmp_path, monkeypatch):
    path = write(tmp_path, recipe(**ON_GPUS))
    stated = make_plan(path, (), tmp_path / "runs", planned_gpus=8)
    monkeypatch.setattr(launch, "count_gpus", lambda: 8)
    launch.resolve_launch.cache_clear()
    counted = make_plan(path, (), tmp_path / "runs")
    assert ids(stated) == ids(counted)
    assert launches(stated) == launches(counted)
    ranks = {label: one["num_processes"] for label, one in launches(stated).items()}
    assert ranks.pop("select") == 1  # the Repr Filter takes one GPU unless select.launch states more
    assert len(ranks) > 5 and set(ranks.values()) == {8}


def test_how_many_there_are_does_not_change_the_keys(tmp_path):
    path = write(tmp_path, recipe(**ON_GPUS))
    one, four = (make_plan(path, (), tmp_path / "runs", planned_gpus=gpus) for gpus in (1, 4))
    assert ids(one) == ids(four)
    assert launches(one)["embed"]["distributed_type"] == "NO"
    assert launches(four)["embed"]["distributed_type"] == "MULTI_GPU"


def test_stating_what_is_there_changes_nothing(tmp_path):
    path = write(tmp_path, recipe())
    counted, stated = make_plan(path, (), tmp_path / "runs"), make_plan(path, (), tmp_path / "runs", planned_gpus=0)
    assert ids(counted) == ids(stated)
    assert stated.cells[0].nodes["embed"].identity["dtype"] == "float32"
    on_gpus = make_plan(path, (), tmp_path / "runs", planned_gpus=2)
    assert on_gpus.cells[0].nodes["embed"].key != stated.cells[0].nodes["embed"].key


def test_the_batch_is_held_against_the_stated_gpus(tmp_path):
    path = write(tmp_path, recipe(**ON_GPUS))
    with pytest.raises(UserError, match="8 is not a multiple of 3"):
        make_plan(path, (), tmp_path / "runs", planned_gpus=3)


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_without_the_option_the_error_names_it(tmp_path, command):
    path = write(tmp_path, recipe(**ON_GPUS))
    answer = command_line(command, path, "--runs", tmp_path / "runs")
    told = answer.stderr.removeprefix("error: ").strip() if command == "validate" else str(answer.exception)
    assert told == (
        f"{path}:57: scorers.quality.train.launch: zero3_offload needs GPUs and this machine has none; cpu, cpu_ddp, "
        "cpu_zero2, cpu_zero3, cpu_fsdp2 do without. To plan or validate for a machine that has some, state how many: "
        "--gpus N."
    )


def test_plan_prints_the_commands_for_them(tmp_path):
    path = write(tmp_path, recipe(**ON_GPUS))
    answer = command_line("plan", path, "--runs", tmp_path / "runs", "--gpus", 8, "--stages")
    assert answer.exit_code == 0, answer.output
    by_id = {line.split("--stage ")[1]: line for line in answer.output.splitlines()}
    plan = make_plan(path, (), tmp_path / "runs", planned_gpus=8)
    commands = [by_id[node.id] for node in plan.nodes if "launch" in node.runtime]
    assert len(commands) == len(launches(plan)) == 10 and list(by_id) == [node.id for node in plan.nodes]
    assert not any("--gpus" in line for line in commands)
    assert [" --num_processes 8 " in line for line in commands] == [label != "select" for label in launches(plan)]


def test_validate_takes_it_too(tmp_path):
    path = write(tmp_path, recipe(**ON_GPUS))
    answer = command_line("validate", path, "--runs", tmp_path / "runs", "--gpus", 4)
    assert answer.exit_code == 0, answer.output
    assert "is valid: 13 stages." in " ".join(answer.output.split())


@pytest.mark.parametrize("number", ["-1", "two", "1.5"])
def test_a_number_of_gpus_is_a_whole_number(tmp_path, number):
    answer = command_line("plan", write(tmp_path, recipe()), "--gpus", number)
    assert answer.exit_code == 2
    assert "--gpus" in answer.output
