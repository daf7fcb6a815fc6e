"""recipes/hf_jobs.py, which is not run here: its header, the command line that it starts, and what it keeps."""

import importlib.util
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


def test_the_header_names_the_projects_own_dependencies():
    (block,) = BLOCK.finditer(SCRIPT.read_text())
    assert block["type"] == "script"
    lines = [line.removeprefix("# ").removeprefix("#") for line in block["content"].splitlines()]
    header = tomllib.loads("\n".join(lines))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert header == {name: project[name] for name in ("requires-python", "dependencies")}


def test_deita_train_accepts_its_command_line(script, monkeypatch):
    (line,) = re.findall(r"recipes/hf_jobs\.py (\S+)\n", script.__doc__.replace("\\\n", ""))
    more = ["--set", "select.budget=1000", "--until", "select"]
    monkeypatch.chdir(ROOT)
    words = script.command([*shlex.split(line), *more], Path("/somewhere/runs"))
    assert words[:5] == [sys.executable, "-m", "deita_train.cli", "run", "recipes/quickstart.yaml"]
    assert Path(words[4]).is_file()
    parsed = typer.main.get_command(app).commands["run"].make_context("run", words[4:]).params
    assert parsed["recipe"] == Path(words[4]) and parsed["runs"] == Path("/somewhere/runs")
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


def test_the_run_is_copied_at_its_end_and_its_code_is_the_scripts(script, tmp_path, monkeypatch):
    for name in ("PROJECT", "KEPT", "RUNS"):
        monkeypatch.setattr(script, name, tmp_path / name.lower())
    (tmp_path / "project" / "deita_train").mkdir(parents=True)
    program = """
import pathlib, sys
run = pathlib.Path(sys.argv[-1], "x")
run.mkdir(parents=True)
(run / "stages.json").touch()
sys.exit(3)
"""
    (tmp_path / "project" / "deita_train" / "__init__.py").touch()
    (tmp_path / "project" / "deita_train" / "cli.py").write_text(program)
    assert script.main(["recipe.yaml"]) == 3
    assert names(tmp_path / "kept") == ["x/stages.json"]
