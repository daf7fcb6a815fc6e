"""Variables of the environment that would change what a stage computes do not reach it."""

import json
import os
from pathlib import Path

import pytest

from deita_train.run import children
from deita_train.run.child.environment import clear_environment, told_as_cleared
from deita_train.run.children import Children

LEFTOVERS = {
    "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_CLIPPING": "0.1", "ACCELERATE_USE_CPU": "true",
    "FSDP_VERSION": "2", "PARALLELISM_CONFIG_TP_SIZE": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "PMI_SIZE": "4",
    "OMPI_COMM_WORLD_SIZE": "4",
}  # fmt: skip
PRECISION = {"NVIDIA_TF32_OVERRIDE": "1", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
OTHERS = {"ACCELERATE_LOG_LEVEL": "info", "CUDA_VISIBLE_DEVICES": "0", "HOME": "/root", "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize(
    ("launched", "removed"), [(False, {**LEFTOVERS, **PRECISION}), (True, PRECISION)], ids=["alone", "launched"]
)
def test_what_would_change_the_content_is_removed(launched, removed):
    environment = {**LEFTOVERS, **PRECISION, **OTHERS}
    assert clear_environment(environment, launched=launched) == sorted(removed)
    assert environment == {
        name: value for name, value in {**LEFTOVERS, **PRECISION, **OTHERS}.items() if name not in removed
    }


def test_it_is_told():
    assert told_as_cleared([]) == ""
    assert told_as_cleared(["A", "B"]) == "ignored, because no recipe states them: A, B\n"


def test_a_run_removes_it_before_its_children_start(monkeypatch, capsys):
    for name in ("OMP_NUM_THREADS", children.PARENT_VARIABLE):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setattr(children.signal, "signal", lambda *handler: None)
    Children(threads=1)
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ
    assert "ignored, because no recipe states them: ACCELERATE_MIXED_PRECISION" in capsys.readouterr().err


def write_variables(path):
    Path(path).write_text(json.dumps({name: os.environ.get(name) for name in ("A_KEY", "ANOTHER")}))


def test_a_child_has_the_variables_of_its_parents_now(monkeypatch, tmp_path):
    monkeypatch.setattr(children.signal, "signal", lambda *handler: None)
    for name in ("OMP_NUM_THREADS", children.PARENT_VARIABLE):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.delenv("A_KEY", raising=False)
    monkeypatch.setenv("ANOTHER", "1")
    started = Children(threads=1)
    started.load_libraries(lambda: None)
    monkeypatch.setenv("A_KEY", "secret")
    monkeypatch.delenv("ANOTHER")
    path = tmp_path / "variables.json"
    assert started._wait(started._process(write_variables, str(path)), lambda: None) == 0
    assert json.loads(path.read_text()) == {"A_KEY": "secret", "ANOTHER": None}
