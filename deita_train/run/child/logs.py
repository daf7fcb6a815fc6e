"""The log of a child process: its output, and the error that it ends with."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from deita_train.errors import MachineFault, UserError, machine_fault
from deita_train.store.locks import watch_parent

# How a user's mistake begins in a child's log.
ERROR_MARK = "error: "


def run_logged(log: Path, work: Callable[[], object]) -> None:
    """Do a child's work with its output in a log.

    Exits with 2 for what the user can fix, 143 after a requested stop, 130 after Ctrl-C, and 1 for any other failure.
    """
    watch_parent()
    try:
        _redirect_output(log)
        work()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        user_error = error if isinstance(error, UserError) else machine_fault(error, log.parent)
        if user_error is None:
            traceback.print_exc()
            raise SystemExit(1) from None
        if isinstance(user_error, MachineFault):
            traceback.print_exception(user_error.__cause__ or error)  # where the memory did not suffice, for example
        sys.stderr.write(f"{ERROR_MARK}{user_error}\n")
        raise SystemExit(user_error.exit_code) from None


def user_error_in(log: Path) -> str | None:
    """The message at the end of the log of a child that ended with code 2."""
    text = log.read_text(errors="replace") if log.exists() else ""
    _, mark, message = f"\n{text}".rpartition(f"\n{ERROR_MARK}")
    return message.strip() if mark else None


def _redirect_output(log: Path) -> None:
    """Append this process's output, and that of its libraries, to a log."""
    sys.stdout.flush()
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
