"""The parts one after the other, each in a process of its own with a time limit and a log."""

import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.record import FAILED, OK, RESULTS, TIMED_OUT, WHOLE_PART, Recorder, UnavailableError, line, short, write_line

_GRACE_SECONDS = 3


@dataclass(frozen=True)
class Part:
    """What to run, and for how many seconds at most."""

    run: Callable[[Recorder], None]
    seconds: float


class Named:
    """The function `run` of the module gpu.<name>, imported by the process that calls it.

    A process that starts anew finds it here: what is defined in a package's `__main__` it would not.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, record: Recorder) -> None:
        """Run the part."""
        importlib.import_module(f"gpu.{self.name}").run(record)


def run_parts(parts: Mapping[str, Part], out: Path, *, dry_run: bool) -> int:
    """Run the parts in their order; how many did not end well. Seconds that one leaves over are the next one's.

    A dry run's parts are forked from this process and share its imports. On a GPU each starts anew, because CUDA does
    not survive a fork.
    """
    out.mkdir(parents=True, exist_ok=True)
    spare, bad = 0.0, 0
    for name, part in parts.items():
        limit = part.seconds + spare
        started = time.monotonic()
        status, reason = _run(name, part.run, out, limit, dry_run=dry_run)
        seconds = time.monotonic() - started
        spare = max(0.0, limit - seconds)
        result = _whole(name, status, reason, seconds, out, dry_run=dry_run)
        write_line(out, result)
        sys.stdout.write(short(result) + "\n")
        sys.stdout.flush()
        bad += status != OK
    return bad


def _run(
    name: str, run: Callable[[Recorder], None], out: Path, limit: float, *, dry_run: bool
) -> tuple[str, str | None]:
    """The status of a part and, unless it is ok, the reason."""
    context = multiprocessing.get_context("fork" if dry_run else "spawn")
    process: Any = context.Process(target=_carry_out, args=(name, run, out, limit, dry_run))
    process.start()
    process.join(limit)
    if process.is_alive():
        _end(process)
        return TIMED_OUT, f"ended after {limit:.0f} s"
    return (OK, None) if process.exitcode == 0 else (FAILED, f"see {name}.log (exit code {process.exitcode})")


def _end(process: Any) -> None:
    """End a part with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.join(_GRACE_SECONDS)
    if process.is_alive():  # it had no group of its own yet
        process.kill()
        process.join()


def _carry_out(name: str, run: Callable[[Recorder], None], out: Path, limit: float, dry_run: bool) -> None:
    """In the part's own process: everything it prints goes to its log, a line for each row to the console too."""
    os.setsid()
    console = os.fdopen(os.dup(1), "w", buffering=1)
    with (out / f"{name}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    try:
        record = Recorder(name, out, dry_run=dry_run, seconds=limit, console=console)
        run(record)
    except Exception as error:
        if not isinstance(error, UnavailableError):
            traceback.print_exc()
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)
    sys.exit(1 if record.num_failed else 0)


def _whole(name: str, status: str, reason: str | None, seconds: float, out: Path, *, dry_run: bool) -> dict[str, Any]:
    """The line of a whole part: how it ended, and how many of its rows ended how."""
    results = out / RESULTS
    lines = [json.loads(text) for text in results.read_text().splitlines()] if results.exists() else []
    own = [result for result in lines if result["part"] == name and result["what"] != WHOLE_PART]
    counts: dict[str, int] = {}
    for result in own:
        counts[result["status"]] = counts.get(result["status"], 0) + 1
    device = own[-1]["device"] if own else "unknown"
    return line(
        name, WHOLE_PART, status, reason=reason, seconds=seconds, details=counts, device=device, dry_run=dry_run
    )
