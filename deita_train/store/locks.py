"""Locks on artefacts, held by the operating system so that a dead process holds nothing."""

import ctypes
import fcntl
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deita_train.errors import UserError

_PR_SET_PDEATHSIG = 1
# Set by `deita-train run` for its children, which must not outlive it.
PARENT_VARIABLE = "DEITA_PARENT_PID"
_WAIT_FOR_THE_DEAD_SECONDS = 60.0
_POLL_SECONDS = 0.5


class BeingMade(UserError):
    """Another run is building an artefact that this one needs."""


@contextmanager
def hold(lock: Path, workers: Path | None, what: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of one artefact while it is built.

    Args:
        lock: the artefact's lock.
        workers: the lock that its processes share, if any. Those of an earlier run that died are waited for, because
            they may still be writing.
        what: the artefact in messages.
        on_wait: takes the name of a run that holds the lock; this one then waits.

    Raises:
        BeingMade: another run holds the lock and `on_wait` is None, or processes of an earlier run do not end.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        _acquire(file, lock, what, on_wait)
        file.truncate(0)
        file.write(own_name())
        file.flush()
        if workers is not None:
            wait_for_workers(workers, what)
        yield


def _acquire(file: IO[str], lock: Path, what: str, on_wait: Callable[[str], None] | None) -> None:
    reported = None
    while not try_lock(file, fcntl.LOCK_EX):
        holder = holder_of(lock)
        if on_wait is None:
            raise BeingMade(f"{what} is being made by {holder}. Wait for it, or stop it, then run again.")
        if holder != reported:
            on_wait(holder)
            reported = holder
        time.sleep(_POLL_SECONDS)


@contextmanager
def hold_if_free(lock: Path, workers: Path) -> Iterator[bool]:
    """Hold both locks of an artefact without waiting, or neither; gives whether they are held."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file, workers.open("a+", encoding="utf-8") as of_workers:
        yield try_lock(file, fcntl.LOCK_EX) and try_lock(of_workers, fcntl.LOCK_EX)


def is_held(lock: Path) -> bool:
    """Whether some process holds a lock."""
    if not lock.exists():
        return False
    with lock.open(encoding="utf-8") as file:
        return not try_lock(file, fcntl.LOCK_EX)


def join_workers(workers: Path) -> IO[str]:
    """Mark this process as working on the artefact for as long as the returned file is open."""
    workers.parent.mkdir(parents=True, exist_ok=True)
    file = workers.open("a+", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux); elsewhere the workers' lock must do.

    `accelerate launch` starts its ranks in sessions of their own, so a signal to the parent's group misses them.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    run = os.environ.get(PARENT_VARIABLE)
    if run is not None and not _alive(int(run)):  # the run was gone before the request
        os.kill(os.getpid(), signal.SIGKILL)


def watch_parent() -> None:
    """End this forked process when the run that asked for it dies.

    Its parent in the kernel's eyes is the fork server, which lives as long as any of its children; so a thread waits
    for the run itself.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process made by multiprocessing has a run to watch"
    threading.Thread(target=_kill_self_after, args=(parent.sentinel,), daemon=True).start()


def _kill_self_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def wait_for_workers(workers: Path, what: str) -> None:
    """Wait until no process of an earlier run works on an artefact.

    Raises:
        BeingMade: some do not end.
    """
    with workers.open("a+", encoding="utf-8") as file:
        deadline = time.monotonic() + _WAIT_FOR_THE_DEAD_SECONDS
        while not try_lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise BeingMade(
                    f"{what}: processes of an earlier run are still working on it (they hold {workers}; "
                    f"`fuser {workers}` names them). Stop them, then run again."
                )
            time.sleep(0.1)


def try_lock(file: IO[str], how: int) -> bool:
    """Lock a file, shared (`LOCK_SH`) or alone (`LOCK_EX`), if nobody has to be waited for."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of(lock: Path) -> str:
    """The process that last took a lock, in words."""
    return _holder(lock.read_text(encoding="utf-8"))


def is_held_by_part(lock: Path) -> bool:
    """Whether the process that last took a lock does a part of the stage, and not all of it."""
    try:
        return bool(json.loads(lock.read_text(encoding="utf-8"))["part"])
    except (ValueError, KeyError):
        return False


def own_name(*, part: bool = False) -> str:
    """This process, as it signs the locks that it holds."""
    return json.dumps(
        {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(sys.argv),
            "part": part,
        }
    )


def _holder(text: str) -> str:
    try:
        name = json.loads(text)
    except ValueError:
        return "another run"
    return f"process {name['pid']} on {name['host']} since {name['since']} ({name['command']})"
