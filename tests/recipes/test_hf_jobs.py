"""recipes/hf_jobs.py, which is not run here: its header, the command line that it starts, and what it keeps."""

import importlib.util
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main
from smoke_run import ROOT

from deita_train.cli import app

SCRIPT = ROOT / "recipes" / "hf_jobs.py"
# The reference implementation's pattern of a block, from the specification of inline metadata (PEP 723).
BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("hf_jobs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_header_needs_nothing_but_the_projects_python():
    (block,) = BLOCK.finditer(SCRIPT.read_text())
    assert block["type"] == "script"
    lines = [line.removeprefix("# ").removeprefix("#") for line in block["content"].splitlines()]
    header = tomllib.loads("\n".join(lines))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert header == {"requires-python": project["requires-python"]}
    imported = re.findall(r"(?m)^(?:import|from) (\w+)", SCRIPT.read_text())
    assert imported and set(imported) <= sys.stdlib_module_names


@pytest.mark.parametrize(("extras", "wanted"), [("", "/project"), ("eval,llm", "/project[eval,llm]")])
def test_it_installs_the_versions_that_the_tests_ran_with(script, extras, wanted):
    made, installed = script.installation(Path("/project"), Path("/venv"), extras)
    assert made == ["uv", "venv", "--python", "3.11", "/venv"]
    constrained = ["--python", "/venv/bin/python", "--constraint", "/project/constraints.txt"]
    assert installed == ["uv", "pip", "install", *constrained, wanted]
    assert (ROOT / "constraints.txt").is_file()


def test_deita_train_accepts_its_command_line(script, monkeypatch):
    (line,) = re.findall(r"recipes/hf_jobs\.py (\S+)\n", script.__doc__.replace("\\\n", ""))
    more = ["--set", "select.budget=1000", "--until", "select"]
    monkeypatch.chdir(ROOT)
    words = script.command([*shlex.split(line), *more], Path("/somewhere/runs"))
    assert words[:3] == ["/tmp/venv/bin/deita-train", "run", "recipes/quickstart.yaml"]
    assert Path(words[2]).is_file()
    parsed = typer.main.get_command(app).commands["run"].make_context("run", words[2:]).params
    assert parsed["recipe"] == Path(words[2]) and parsed["runs"] == Path("/somewhere/runs")
    assert parsed["sets"] == ["select.budget=1000"] and parsed["until"] == "select"


def artefact(runs, name, **files):
    folder = runs / "store" / name
    (folder / "data").mkdir(parents=True)
    for file, text in files.items():
        (folder / file.replace("_", ".")).write_text(text)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_made_artefacts_and_the_runs_folder_are_kept_and_taken_up_again(script, tmp_path):
    runs, kept = tmp_path / "runs", tmp_path / "kept"
    script.copy_runs(kept, runs)
    assert not runs.exists(), "there is nothing yet"
    artefact(runs, "pool-1", manifest_json="{}", table="rows")
    artefact(runs, ".work/embed-2", table="half")
    (runs / "quickstart").mkdir()
    (runs / "quickstart" / "stages.json").write_text("{}")
    (runs / "quickstart" / "sft").symlink_to(runs / "store" / "sft-3")
    (kept / "store" / "pool-1").mkdir(parents=True)
    (kept / "store" / "pool-1" / "table").write_text("a copy that was cut off")
    script.copy_runs(runs, kept)
    made = ["quickstart/stages.json", "store/pool-1/manifest.json", "store/pool-1/table"]
    assert names(kept) == made and (kept / "store" / "pool-1" / "table").read_text() == "rows"
    script.copy_runs(kept, tmp_path / "another day")
    assert names(tmp_path / "another day") == made


UV = """#!/bin/bash
echo "uv $*" >> "$CALLS"
[[ "$1" == venv ]] || exit 0
mkdir -p "${@: -1}/bin"
cp "$DEITA_TRAIN" "${@: -1}/bin/deita-train"
"""
# The folder of --runs is its last word, but for a rehearsal.
DEITA_TRAIN = """#!/bin/bash
echo "deita-train $* in $PWD, $PYTHONSAFEPATH" >> "$CALLS"
[[ "$*" != *--rehearse ]] || exit "$REHEARSED"
mkdir -p "${@: -1}/x" && touch "${@: -1}/x/stages.json"
exit 3
"""


@pytest.fixture
def node(script, tmp_path, monkeypatch):
    """A machine with a stand-in for uv, which installs one for deita-train; returns the calls so far."""
    for name in ("PROJECT", "KEPT", "RUNS", "VENV"):
        monkeypatch.setattr(script, name, tmp_path / name.lower())
    for name, text in {"uv": UV, "deita-train": DEITA_TRAIN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = {"CALLS": "calls", "DEITA_TRAIN": "deita-train"}
    for name, file in settings.items():
        monkeypatch.setenv(name, str(tmp_path / file))
    monkeypatch.setenv("REHEARSED", "0")
    monkeypatch.delenv("DEITA_REHEARSE", raising=False)
    return lambda: (tmp_path / "calls").read_text().replace(str(tmp_path), "").splitlines()


def test_a_job_installs_rehearses_runs_and_keeps_the_run(script, tmp_path, node):
    assert script.main(["recipe.yaml"]) == 3
    run = "deita-train run recipe.yaml --runs /runs"
    assert node() == [
        "uv venv --python 3.11 /venv",
        "uv pip install --python /venv/bin/python --constraint /project/constraints.txt /project",
        f"{run} --rehearse in /project, 1",
        f"{run} in /project, 1",
    ]
    assert names(tmp_path / "kept") == ["x/stages.json"]


def test_a_job_that_continues_does_not_rehearse(script, tmp_path, node):
    artefact(tmp_path / "kept", "pool-1", manifest_json="{}")
    assert script.main(["recipe.yaml"]) == 3
    assert node()[2:] == ["deita-train run recipe.yaml --runs /runs in /project, 1"]


def test_what_breaks_in_the_rehearsal_is_not_paid_for(script, tmp_path, node, monkeypatch):
    monkeypatch.setenv("REHEARSED", "2")
    assert script.main(["recipe.yaml"]) == 2
    assert len(node()) == 3 and not (tmp_path / "kept").exists()
