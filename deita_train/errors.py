"""The exception that stands for a mistake of the user's, and the faults of the machine that are told like one."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path


class UserError(ValueError):
    """Something the user can fix: the command line prints the message alone and exits with code 2.

    The message says what was wrong, the value, what is allowed, where (file, line, row id or dotted recipe path),
    and what to do next. A fault of our own is an ``assert`` or an ordinary exception instead.
    """

    exit_code = 2


class Stopped(UserError):
    """Somebody asked for a stop by SIGTERM; what was done is kept, and the same command continues."""

    exit_code = 128 + 15


_SPACE = "free some space, or name a folder on another disk with --runs"
_ACCESS = "change its permissions, or name another one"
_MISPLACED = "a file is in the place of a folder: move it away, or name another folder with --runs"
_FILES = "close other programs, or raise the limit on open files (ulimit -n)"
_ADVICE: Mapping[int, str] = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f, or the disk's), or name another disk with --runs",
    errno.EROFS: "name a folder on a disk that can be written to with --runs",
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.ENOTDIR: _MISPLACED,
    errno.EEXIST: _MISPLACED,
    errno.ENAMETOOLONG: "give a shorter name or a shorter path",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EIO: "the disk is failing: check the system log, or use another disk",
}
# Libraries that are not written in Python give the number in their text alone.
_NUMBER = re.compile(r"\((?:os error|errno) (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
# torch.save gives no number at all; its writer has no other reason to fail.
_TORCH_WRITER = re.compile(r"inline_container\.cc|PytorchStreamWriter failed")
# datasets looks before a download whether the disk has room, and gives no number either.
_NO_ROOM = re.compile(r"Not enough disk space")
# What the clients of the Hub, of S3 and of web servers raise when no answer comes, by the names of their classes.
_NO_ANSWER = frozenset(
    {"ConnectionError", "TimeoutError", "gaierror", "TransportError", "Timeout", "ClientConnectionError",
     "HTTPClientError"}
)  # fmt: skip
_TOO_MANY_REQUESTS = 429
_SERVER_FAILS = range(500, 600)


def machine_fault(error: BaseException, folder: Path | str, *, space: str = _SPACE) -> UserError | None:
    """A full disk, a read-only folder and the like as a message for the user; None when `error` is none of these.

    What was written before stays, so the message ends with how to go on.

    Args:
        error: what was raised.
        folder: the place to name when the error names none.
        space: the advice for a full disk.
    """
    if not isinstance(error, Exception) or isinstance(error, UserError):
        return None
    for cause in _causes(error):
        number = _number(cause)
        if number in _ADVICE:
            place = getattr(cause, "filename", None) or folder
            advice = space if _ADVICE[number] == _SPACE else _ADVICE[number]
            return UserError(f"{place}: {os.strerror(number).lower()}; {advice}. Then run again.")
        if isinstance(cause, RuntimeError) and _TORCH_WRITER.search(str(cause)):
            return UserError(f"{folder}: a file could not be written completely; {_SPACE}. Then run again.")
    return None


def network_fault(error: BaseException, place: str) -> UserError | None:
    """A network or a server that does not answer, as a message that begins with `place`; None for any other error."""
    if not is_network_fault(error):
        return None
    said = f"{type(error).__name__}: {error}"
    return UserError(f"{place}: the network or the server does not answer ({said}). Check both, then run again.")


def is_network_fault(error: BaseException) -> bool:
    """Whether an error comes from a network or a server that does not answer, and not from what was asked for."""
    return not isinstance(error, UserError) and any(
        not _NO_ANSWER.isdisjoint(kind.__name__ for kind in type(cause).__mro__) or _server_fails(cause)
        for cause in _causes(error)
    )


def _server_fails(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == _TOO_MANY_REQUESTS or status in _SERVER_FAILS


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from or beside, the last one first."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        yield following
        seen.append(following)
        following = following.__cause__ or following.__context__


def _number(error: BaseException) -> int:
    """The operating system's number of an error; 0 when it gives none."""
    if isinstance(error, FileExistsError) and Path(str(error.filename)).is_dir():
        return 0  # two processes at once, and no file in the way
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, PermissionError):
        return errno.EACCES
    if _NO_ROOM.search(str(error)):
        return errno.ENOSPC
    found = _NUMBER.search(str(error))
    return int(found[1] or found[2]) if found else 0
