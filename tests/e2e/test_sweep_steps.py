"""A sweep of selections alone, so that no model is trained: its printed steps, one of its cells failing."""

import json
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from unittest.mock import patch

import pytest
from smoke_run import run_environment

from deita_train.cli import main

# A budget of more than twice the pool is an error of the stage, not of the recipe: 24 rows cannot fill it.
RECIPE = """\
name: budgets
pool: {builtin: quickstart, rows: 24}
select: {method: random, budget: 8}
sweep:
  select.budget: [4, 400]
  select.seed: [1, 2]
  whole_pool: true
"""
ARGUMENTS = ["my recipe.yaml", "--set", 'description=the "budgets" of $HOME, isn\'t it', "--runs", "my runs"]
RUN = "deita-train run 'my recipe.yaml' --set 'description=the \"budgets\" of $HOME, isn'\"'\"'t it' --runs 'my runs'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the recipe, in which the commands are given as a person would give them."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "my recipe.yaml").write_text(RECIPE)
    return folder


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def shell(folder):
    """Carries out a command in the folder: what bash makes of its line, in this process.

    Bash finds a `deita-train` that writes down its arguments. They are then carried out here, with the libraries
    loaded once for all commands.
    """
    program, heard = folder / "bin" / "deita-train", folder / "heard"
    program.parent.mkdir()
    program.write_text(f"#!/bin/bash\nprintf '%s\\0' \"$@\" >> '{heard}'\n")
    program.chmod(0o755)

    def shell(*command, **variables):
        environment = run_environment() | {"PATH": f"{program.parent}:{os.environ['PATH']}"} | variables
        heard.write_text("")
        subprocess.run(command, cwd=folder, env=environment, timeout=60, check=True)
        arguments = heard.read_text().split("\0")[:-1]
        out, err, code = StringIO(), StringIO(), 0
        with (
            patch.dict(os.environ, run_environment()), patch.object(sys, "argv", ["deita-train", *arguments]),
            chdir(folder), redirect_stdout(out), redirect_stderr(err),
        ):  # fmt: skip
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        return Answer(code, out.getvalue(), err.getvalue())

    return shell


@pytest.fixture(scope="module")
def carried_out(folder, shell):
    """One cell from the printed commands, one as a task of the printed script, then the run of what is left."""
    commands = shell("deita-train", "plan", *ARGUMENTS, "--commands").stdout.splitlines()
    script = shell("deita-train", "plan", *ARGUMENTS, "--slurm").stdout
    (folder / "job.sbatch").write_text(script)
    return {
        "commands": commands,
        "cell": shell("bash", "-c", commands[2]),
        "task": shell("bash", "job.sbatch", SLURM_ARRAY_TASK_ID="4"),
        "failures after the task": json.loads((folder / "my runs" / "budgets" / "failures.json").read_text()),
        "run": shell("bash", "-c", commands[-1]),
    }


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def selected(folder):
    """Cell -> the rows that its selection has, for the cells that have one."""
    run = json.loads((folder / "my runs" / "budgets" / "stages.json").read_text())
    manifests = {
        cell["label"]: folder / "my runs" / "store" / cell["stages"]["select"] / "manifest.json"
        for cell in run["cells"]
    }
    return {cell: json.loads(path.read_text())["rows_out"] for cell, path in manifests.items() if path.exists()}


def test_the_commands_are_one_line_per_step(carried_out):
    cells = ["budget 4, seed 1", "budget 4, seed 2", "budget 400, seed 1", "budget 400, seed 2"]
    assert carried_out["commands"] == [
        f"{RUN} --cell shared",
        f"{RUN} --cell 'base run'",
        *(f"{RUN} --cell '{cell}'" for cell in cells),
        f"{RUN} --cell 'whole pool'",
        RUN,
    ]


def test_commands_and_script_are_printed_one_at_a_time(carried_out, shell, folder):
    answer = shell("deita-train", "plan", *ARGUMENTS, "--commands", "--slurm")
    assert (answer.returncode, answer.stdout) == (2, "")
    options = "--commands, --slurm, --stages and --json"
    assert answer.stderr == f"error: {options}: each prints something else; give one of them.\n"
    assert (folder / "job.sbatch").read_text().startswith("#!/bin/bash\n# The 6 cells of the sweep in my recipe.yaml,")


def test_a_pasted_command_carries_out_its_cell_alone(carried_out):
    cell = carried_out["cell"]
    assert cell.returncode == 0, cell.stderr
    shown = lines(cell.stdout)
    assert shown[0] == 'the "budgets" of $HOME, isn\'t it'
    assert [line.split()[1] for line in shown if line.startswith(("[2", "[3"))] == ["pool", "select"]
    assert shown[-1] == "[4/4] report not written: 5 of the sweep's 7 artefacts are still missing"


def test_a_task_of_the_script_fails_with_its_cell(carried_out):
    task = carried_out["task"]
    assert task.returncode == 2
    assert task.stderr.startswith("error: select: the budget is 400 rows, but only 24 of 24 can be selected.")
    assert [entry["cells"] for entry in carried_out["failures after the task"]] == [["budget 400, seed 1"]]


def test_the_run_makes_the_rest_and_reports_what_there_is(carried_out, folder):
    run = carried_out["run"]
    assert run.returncode == 2
    assert run.stdout.count("already done") == 2  # the pool, and the selection of the pasted cell
    assert selected(folder) == {"base run": 8, "budget 4, seed 1": 4, "budget 4, seed 2": 4, "whole pool": 24}
    message = run.stderr.splitlines()
    assert message[0] == "error: 2 stages failed; everything else is done."
    assert [line for line in message if "cells:" in line] == [
        "  cells:   budget 400, seed 1",
        "  cells:   budget 400, seed 2",
    ]
    page = (folder / "my runs" / "budgets" / "report" / "report.html").read_text()
    assert "budget 400, seed 1" in page and "the budget is 400 rows, but only 24 of 24" in page


def test_the_logs_and_commands_of_the_list_are_real(carried_out, folder, shell):
    message = carried_out["run"].stderr.splitlines()
    logs = [line.removeprefix("  logs:    ") for line in message if line.startswith("  logs:")]
    assert len(logs) == 2 and all((folder / log / "rank0.log").is_file() for log in logs)
    again = next(line.removeprefix("  retry:   ") for line in message if line.startswith("  retry:"))
    assert shell("bash", "-c", again).returncode == 2
