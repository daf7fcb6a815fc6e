"""Shared by all tests: where ../shared lies, children that start at once, and one smoke run to compare with."""

import gc
import os
import shutil
from pathlib import Path

# pytest-xdist has a worker for each core; threads beside them would only wait for one another. Read when torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock
from forked_ranks import fork_server
from smoke_run import run_smoke


def pytest_collection_finish() -> None:
    """Keep the libraries' objects out of garbage collections: every training begins with a full one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden cases; without it the test is skipped, visibly."""
    folder = os.environ.get("DEITA_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DEITA_SHARED names no folder with the shared data")
    return Path(folder)


@pytest.fixture(scope="session")
def processes():
    """Where forked children come from: `processes.Process(target=...)`."""
    return fork_server()


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
