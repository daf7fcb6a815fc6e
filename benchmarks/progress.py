"""What the CPU benchmarks show while they run, and when they give up."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """The option `--minutes`."""
    parser.add_argument("--minutes", type=float, default=10, help="give up after this many")


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """End the process with a message if the block takes longer, whatever it is doing then."""

    def give_up(*_: object) -> None:
        say(f"not done after {minutes:g} minutes; --minutes allows more")
        raise SystemExit(1)

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def say(line: str) -> None:
    """Show what is being measured now."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
