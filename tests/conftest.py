"""Shared by all tests: where ../shared lies, and one undisturbed smoke run that the long tests compare with."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from smoke_run import run_smoke


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden cases; without it the test is skipped, visibly."""
    folder = os.environ.get("DEITA_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DEITA_SHARED names no folder with the shared data")
    return Path(folder)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a smoke run that nothing disturbed; pytest's workers share one."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _smoke_run(tmp_path_factory.mktemp("undisturbed"))
    runs = tmp_path_factory.getbasetemp().parent / "undisturbed"
    with FileLock(f"{runs}.lock"):
        if not (runs / "complete").exists():
            shutil.rmtree(runs, ignore_errors=True)
            _smoke_run(runs)
            (runs / "complete").touch()
    return runs


def _smoke_run(runs: Path) -> Path:
    answer = run_smoke(runs)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return runs
