"""Smoke runs for the end-to-end tests: how they are started, and what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"


def run_environment() -> dict[str, str]:
    """One thread per rank, so that every run of a test has the same bits; no network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


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


def stages(runs: Path, name: str = "smoke") -> dict[str, str]:
    """Artefact ids of the recipe as written, by stage label."""
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
