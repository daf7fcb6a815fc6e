"""With real processes: a lock that the operating system holds cannot be tried within one."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deita_train.errors import UserError
from deita_train.store import locks
from deita_train.store.locks import PARENT_VARIABLE, die_with_parent, hold, join_workers

HOLD = """
import sys
from pathlib import Path
from deita_train.store.locks import hold
with hold(Path(sys.argv[1]), Path(sys.argv[2]), "sft"):
    print("holds", flush=True)
    sys.stdin.read()
"""
WORK = """
import sys
from pathlib import Path
from deita_train.store.locks import join_workers
working = join_workers(Path(sys.argv[1]))
print("works", flush=True)
sys.stdin.read()
"""
# A run, its launcher in a session of its own, and a rank in a session of its own; the rank prints its process id.
FAMILY = """
import os, subprocess, sys
program, depth = sys.argv[1], int(sys.argv[2])
if depth == 2:
    os.environ["DEITA_PARENT_PID"] = str(os.getpid())
else:
    from deita_train.store.locks import die_with_parent
    die_with_parent()
if depth == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
else:
    command = [sys.executable, "-c", program, program, str(depth - 1)]
    subprocess.run(command, start_new_session=True)
"""
pytestmark = pytest.mark.timeout(30)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's request is Linux's")


@pytest.fixture
def start():
    """Start a Python program and wait for its first line; whatever still lives is killed at the end."""
    started = []

    def start(program, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline().strip()
        assert line, "the process ended before its first line"
        return process, line

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "locks" / "a.lock", tmp_path / "locks" / "a.workers"


def test_a_second_holder_is_refused_with_the_firsts_name(start, paths):
    first, _ = start(HOLD, *paths)
    with pytest.raises(UserError) as caught, hold(*paths, "sft"):
        pass
    message = str(caught.value)
    assert message.startswith(f"sft is being made by process {first.pid} on ")
    assert message.endswith(f"(-c {paths[0]} {paths[1]}). Wait for it, or stop it, then run again.")


def test_a_refused_holder_leaves_the_lock_as_it_was(start, paths):
    first, _ = start(HOLD, *paths)
    for _ in range(2):
        with pytest.raises(UserError, match=f"process {first.pid} "), hold(*paths, "sft"):
            pass


def test_a_kill_of_the_holder_frees_the_lock(start, paths):
    first, _ = start(HOLD, *paths)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with hold(*paths, "sft"):
        assert f'"pid": {os.getpid()}' in paths[0].read_text()
        assert str(first.pid) not in paths[0].read_text()


def test_a_lock_is_free_after_its_block_and_after_an_error(paths):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), hold(*paths, "sft"):
            raise ZeroDivisionError
    with hold(*paths, "sft"), pytest.raises(UserError, match=f"process {os.getpid()} "), hold(*paths, "sft"):
        pass


def test_artefacts_are_locked_one_by_one(paths, tmp_path):
    with hold(*paths, "sft"), hold(tmp_path / "b.lock", tmp_path / "b.workers", "embed"):
        pass


def test_a_holder_that_has_not_written_its_name_is_another_run(paths):
    paths[0].parent.mkdir()
    with hold(*paths, "sft"):
        paths[0].write_text("")
        with pytest.raises(UserError, match=r"^sft is being made by another run"), hold(*paths, "sft"):
            pass


def test_a_holder_that_may_wait_says_for_whom_and_starts_when_the_lock_is_free(start, paths, monkeypatch):
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.02)
    first, _ = start(HOLD, *paths)
    waits = []

    def end_the_first(holder):
        waits.append((holder, first.poll()))
        threading.Timer(0.2, first.kill).start()

    with hold(*paths, "sft", on_wait=end_the_first):
        assert first.wait() == -signal.SIGKILL
        assert f'"pid": {os.getpid()}' in paths[0].read_text()
    assert len(waits) == 1, "said once, however often the lock is tried"
    holder, state_then = waits[0]
    assert holder.startswith(f"process {first.pid} on ") and state_then is None


def test_a_holder_that_may_wait_has_no_need_to_when_the_lock_is_free(paths):
    waits = []
    with hold(*paths, "sft", on_wait=waits.append):
        pass
    assert waits == []


def test_workers_that_are_still_alive_are_waited_for_and_then_named(start, paths, monkeypatch):
    start(WORK, paths[1])
    monkeypatch.setattr(locks, "_WAIT_FOR_THE_DEAD_SECONDS", 0.2)
    with pytest.raises(UserError) as caught, hold(*paths, "sft"):
        pass
    assert str(caught.value).startswith("sft: processes of an earlier run are still working on it")
    assert f"`fuser {paths[1]}`" in str(caught.value)


def test_a_holder_starts_when_the_last_worker_has_ended(start, paths):
    workers = [start(WORK, paths[1])[0] for _ in range(2)]
    ended = []

    def end():
        for worker in workers:
            time.sleep(0.2)
            ended.append(worker.pid)
            worker.kill()

    thread = threading.Thread(target=end)
    thread.start()
    with hold(*paths, "sft"):
        assert ended == [worker.pid for worker in workers]
    thread.join()


def test_workers_share_their_lock_and_may_join_a_held_artefact(start, paths):
    with hold(*paths, "sft"):
        start(WORK, paths[1])
        join_workers(paths[1]).close()


def state(pid):
    """The process's state letter, or None when it is gone; a zombie is dead and only waits to be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


@linux
def test_a_rank_dies_with_the_run_although_its_session_is_its_own(start):
    run, rank = start(FAMILY, FAMILY, 2)
    assert state(rank) not in (None, "Z")
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 10
    while state(rank) not in (None, "Z"):
        assert time.monotonic() < deadline, "the rank outlived its run"
        time.sleep(0.02)


@linux
def test_a_child_of_a_run_that_is_gone_already_kills_itself():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    program = "from deita_train.store.locks import die_with_parent; die_with_parent(); print('lives')"
    environment = {**os.environ, PARENT_VARIABLE: str(gone.pid)}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert (answer.returncode, answer.stdout) == (-signal.SIGKILL, b"")


def test_a_child_of_a_living_run_goes_on(monkeypatch):
    asked = []
    if sys.platform.startswith("linux"):  # not for this process: pytest's parent may end before it
        monkeypatch.setattr(
            locks.ctypes, "CDLL", lambda *_, **__: type("C", (), {"prctl": lambda _, *x: asked.append(x)})()
        )
    monkeypatch.setenv(PARENT_VARIABLE, str(os.getpid()))
    die_with_parent()
    assert asked in ([], [(1, signal.SIGKILL)])
