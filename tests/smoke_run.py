"""Smoke runs for the end-to-end tests: how they are started, and what they leave."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import datasets
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.store.locks import PARENT_VARIABLE

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"


def run_environment() -> dict[str, str]:
    """One thread per rank, so that every run of a test has the same bits; no network, and no run above it."""
    mine = {name: value for name, value in os.environ.items() if name != PARENT_VARIABLE}
    return {**mine, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


def run_command(runs: Path, *arguments: str) -> list[str]:
    """The command line of a smoke run."""
    return [sys.executable, "-m", "deita_train.cli", "run", str(SMOKE), "--runs", str(runs), *arguments]


def run_smoke(runs: Path, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """A smoke run to its end."""
    return subprocess.run(
        run_command(runs, *arguments),
        env=run_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_smoke_here(runs: Path, *arguments: str) -> str:
    """A smoke run to its end inside this process, whose fork server has loaded the libraries; what it printed."""
    return command_here(*run_command(runs, *arguments)[3:])


def command_here(*arguments: str) -> str:
    """What `deita-train <arguments>` prints, carried out inside this process in the repository's folder."""
    with patch.dict(os.environ, run_environment()), chdir(ROOT):
        answer = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def copy_without(undisturbed: Path, runs: Path, *labels: str) -> None:
    """Copy the artefacts of a run to `runs`, without those of some stages, which the next run must make."""
    left_out = {stages(undisturbed)[label] for label in labels}
    shutil.copytree(undisturbed / "store", runs / "store", ignore=lambda folder, names: left_out & {*names})


def stages(runs: Path, name: str = "smoke") -> dict[str, str]:
    """Artefact ids of the base run, by stage label."""
    record = json.loads((runs / name / "stages.json").read_text())
    return next(cell["stages"] for cell in record["cells"] if cell["base"])


def digests(runs: Path, name: str = "smoke") -> dict[str, str]:
    """Content digests by stage label."""
    return {
        label: json.loads((runs / "store" / artefact / "manifest.json").read_text())["content_digest"]
        for label, artefact in stages(runs, name).items()
    }


def selected_ids(runs: Path, name: str = "smoke") -> list[str]:
    """The kept ids in rank order."""
    return list(datasets.load_from_disk(str(runs / "store" / stages(runs, name)["select"] / "data"))["id"])
