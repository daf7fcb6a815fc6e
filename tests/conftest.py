"""Shared by all tests: where ../shared lies, children that start at once, and one smoke run to compare with."""

import gc
import multiprocessing
import os
import shutil
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

# pytest-xdist has a worker for each core; threads beside them would only wait for one another. Read when torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A chat server's key, for runs inside a test: their stages are forked from a server that starts with this environment.
os.environ["PLANTED_KEY"] = "sk-planted-4c1e88a07d52"

import pytest
from filelock import FileLock
from smoke_run import run_smoke

from deita_train.store.locks import PARENT_VARIABLE

_INHERITED = frozenset(os.environ)
# The files that take longest. Those with the undisturbed run do not come first on both workers, where one would wait.
SLOWEST = [
    f"tests/{name}.py"
    for name in (
        "distributed/test_training_ranks", "e2e/test_smoke", "distributed/test_training_kills", "e2e/test_kill",
        "distributed/test_two_ranks", "training/test_dpo", "test_bad_input", "stages/test_pass_reference",
        "e2e/test_sweep_steps", "e2e/test_real_preferences", "distributed/test_pass_kills", "training/test_stopping",
        "recipes/test_model_families", "stages/test_lm_eval_stage", "asking/test_whole_run", "asking/test_evolve_run",
        "run/test_parts", "commands/test_slurm_jobs", "run/test_ray_parts", "benchmarks/test_preparation",
        "stages/test_walked_embedding", "distributed/test_walked_kills", "rehearsal/test_shipped_recipes",
        "rehearsal/test_planted_mistakes",
    )
]  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slowest files first, so that no worker ends with one of them alone."""
    places = {config.rootpath / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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


@pytest.fixture(autouse=True)
def _environment():
    """Take back the variables that a training inside the test process has set, before a child gets them."""
    _forget_trainings()
    yield
    _forget_trainings()


def _forget_trainings():
    for name in os.environ.keys() - _INHERITED:
        if name.startswith("ACCELERATE_") or name == PARENT_VARIABLE:
            del os.environ[name]


@pytest.fixture(scope="session")
def processes():
    """The context of children forked from a process that has imported everything.

    A pytest worker has one such process, which the runs inside the worker use too; so it starts with their environment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deita_train.stages.preload"])
    with patch.dict(os.environ, {PARENT_VARIABLE: str(os.getpid())}):
        forkserver.ensure_running()
    return context


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
