"""Shared by all tests: where ../shared lies, and one undisturbed smoke run that the long tests compare with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden cases; without it the test is skipped, visibly."""
    folder = os.environ.get("DEITA_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DEITA_SHARED names no folder with the shared data")
    return Path(folder)


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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a smoke run that nothing disturbed."""
    runs = tmp_path_factory.mktemp("undisturbed")
    answer = run_smoke(runs)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return runs
