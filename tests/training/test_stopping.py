"""SIGTERM and the passing of time: a checkpoint more, and the same weights in the end."""

import os
import signal
import time
import traceback
from contextlib import redirect_stderr

import pytest
from conversation_loss import make_rows, run
from safetensors.torch import load_file

from deita_train.errors import Stopped
from deita_train.training.checkpoints import find_damage
from deita_train.training.stopping import STOP_FILE, StopRequest

# 12 rows in batches of 4: 60 steps, no checkpoint of their own before the last.
LONG = {"num_train_epochs": 20, "save_steps": 60, "optim": "adamw_torch", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("stopping")
    make_rows(made)
    return made


@pytest.fixture(scope="module")
def undisturbed(folder):
    return run(folder, "undisturbed", "per_token", **LONG)


def checkpoints(folder):
    return sorted(int(path.name.split("-")[1]) for path in (folder / "checkpoints").glob("checkpoint-*"))


def train_with_a_log(folder, log):
    with log.open("w") as output, redirect_stderr(output):
        try:
            run(folder, "stopped", "per_token", **LONG)
        except Stopped:
            traceback.print_exc()
            raise


def test_after_sigterm_the_same_command_ends_with_the_same_bytes(processes, folder, undisturbed):
    log = folder / "log"
    process = processes.Process(target=train_with_a_log, args=(folder, log))
    process.start()
    marks = folder / "stopped" / "checkpoints"
    deadline = time.monotonic() + 120
    while not marks.exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # the trainer makes its folder before its first step
    process.terminate()
    process.join(120)
    assert process.exitcode == 1
    text = log.read_text()
    assert "Stopped: stopped as asked after step " in text, text
    (step,) = checkpoints(folder / "stopped")
    assert 0 < step < 60 and f"after step {step} of 60" in text
    assert find_damage(folder / "stopped" / "checkpoints" / f"checkpoint-{step}") is None
    assert not (folder / "stopped" / "model").exists()
    outcome = run(folder, "stopped", "per_token", **LONG)
    assert outcome.resumed_from == step
    assert outcome.history == undisturbed.history
    one, other = (load_file(folder / name / "model" / "model.safetensors") for name in ("undisturbed", "stopped"))
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_a_file_asks_like_the_signal(folder):
    (folder / "asked").mkdir()
    (folder / "asked" / STOP_FILE).touch()
    with pytest.raises(Stopped, match="after step 1 of 60"):
        run(folder, "asked", "per_token", **LONG)
    assert checkpoints(folder / "asked") == [1]


def test_a_stop_at_the_last_step_ends_as_if_nobody_had_asked(folder):
    one_step = LONG | {"max_steps": 1}
    (folder / "last").mkdir()
    (folder / "last" / STOP_FILE).touch()
    assert run(folder, "last", "per_token", **one_step).steps == 1
    assert (folder / "last" / "model").exists()


@pytest.mark.parametrize(("minutes", "kept"), [(1e-9, [8, 10]), (30.0, [10])])
def test_a_checkpoint_when_time_has_passed_at_a_step_that_is_logged(folder, minutes, kept):
    """Ten steps, logged at every second one and at the end."""
    fields = LONG | {"max_steps": 10, "logging_steps": 2, "save_steps": 100}
    run(folder, f"time_{minutes}", "per_token", minutes=minutes, **fields)
    assert checkpoints(folder / f"time_{minutes}") == kept


def test_the_signal_is_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(tmp_path / STOP_FILE) as request:
        assert not request.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.asked
    assert signal.getsignal(signal.SIGTERM) is before
