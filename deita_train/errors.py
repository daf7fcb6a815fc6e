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


class MachineFault(UserError):
    """A fault of the machine, such as a full disk: reported like a mistake of the user's, who can fix it."""


_SPACE = "free some space, or name a folder on another disk with --runs"
_ACCESS = "change its permissions, or name another one"
_MISPLACED = "a file is in the place of a folder: move it away, or name another folder with --runs"
_FILES = "close other programs, or raise the limit on open files (ulimit -n)"
_DISK = "the disk is failing: check the system log, or use another disk"
_MEMORY = (
    "close other programs, give the stage less at once (max_batch_tokens:, trainer.per_device_train_batch_size:, "
    "shorter or fewer rows), or use a machine with more"
)
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
    errno.EIO: _DISK,
    errno.ESTALE: "the network disk has lost the file: mount it again, or use another disk",
    errno.ENOLCK: "that disk gives no locks: name a folder on another one with --runs",
    errno.ENOMEM: _MEMORY,
}
# Libraries that are not written in Python give the number in their text alone.
_NUMBER = re.compile(r"\((?:os error|errno) (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
# Some give only the words, and datasets has its own for a full disk.
_WORDS: Mapping[str, int] = {
    **{os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENOMEM)},
    "Not enough disk space": errno.ENOSPC,
}
# torch.save gives no number at all; its writer has no other reason to fail.
_TORCH_WRITER = re.compile(r"inline_container\.cc|PytorchStreamWriter failed")
# torch has a class for the memory of a GPU, and for that of a CPU only these words.
_TORCH_MEMORY = re.compile(r"DefaultCPUAllocator|CUDA out of memory")
# The classes of HTTP libraries by name, because none is imported for it: what has no answer, and what has a bad one.
_HTTP = frozenset(
    ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp", "huggingface_hub", "socket")
)
_UNREACHED = frozenset(
    (
        "TransportError", "NetworkError", "TimeoutException", "ConnectionError", "Timeout", "ClientConnectionError",
        "ChunkedEncodingError", "NewConnectionError", "MaxRetryError", "ProtocolError", "gaierror",
        "LocalEntryNotFoundError", "OfflineModeIsEnabled",
    )
)  # fmt: skip
_ANSWERED = "HfHubHTTPError"
_OFFLINE = "OfflineModeIsEnabled"
# What a network's file system says when its server is busy, restarts, or was away.
_PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
     errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED}
)  # fmt: skip
_TOO_MANY_REQUESTS = 429
_SERVERS_OWN = 500


# The same of other libraries, such as those of S3, whatever their module.
_NO_ANSWER = frozenset(
    {"ConnectionError", "TimeoutError", "gaierror", "TransportError", "Timeout", "ClientConnectionError",
     "HTTPClientError"}
)  # fmt: skip


def machine_fault(error: BaseException, folder: Path | str, *, space: str = _SPACE) -> MachineFault | None:
    """A full disk, no network, no memory and the like as a message for the user; None for anything else.

    What was written before stays, so the message ends with how to go on.

    Args:
        error: what was raised.
        folder: the place to name when the error names none.
        space: the advice for a full disk.
    """
    if not isinstance(error, Exception) or isinstance(error, UserError):
        return None
    for cause in _causes(error):
        text = _fault(cause, folder, space)
        if text is not None:
            return MachineFault(f"{text}. Then run again.")
    return None


def raise_machine_fault(error: BaseException, place: Path | str) -> None:
    """Raise an error as the machine's fault, if it is one; for a place that would else call its data damaged.

    Raises:
        MachineFault: it is.
    """
    fault = machine_fault(error, place)
    if fault is not None:
        raise fault from error


def network_fault(error: BaseException, place: str) -> MachineFault | None:
    """A network or a server that does not answer, as a message that begins with `place`; None for any other error."""
    if not is_network_fault(error):
        return None
    said = f"{type(error).__name__}: {error}"
    return MachineFault(f"{place}: the network or the server does not answer ({said}). Check both, then run again.")


def is_network_fault(error: BaseException) -> bool:
    """Whether an error comes from a network or a server that does not answer, and not from what was asked for."""
    return not isinstance(error, UserError) and any(
        not _NO_ANSWER.isdisjoint(kind.__name__ for kind in type(cause).__mro__)
        or _serves_nothing(cause)
        or _network_fault(cause) is not None
        for cause in _causes(error)
    )


def is_passing(error: BaseException) -> bool:
    """Whether the same may succeed a little later, without anybody's help: no answer from a server, a hiccup of a disk.

    A message for the user is as passing as the error that it was raised from. What the Hub's client may not ask for, or
    what is not there, does not pass.
    """
    if isinstance(error, UserError):
        return error.__cause__ is not None and is_passing(error.__cause__)
    causes = [*_causes(error)]
    if any(type(cause).__name__ == _OFFLINE for cause in causes):
        return False
    # The Hub's client calls a file that is in no cache unreached too.
    unlikely = (FileNotFoundError, BrokenPipeError)
    return any(
        _number(cause) in _PASSING or (is_network_fault(cause) and not isinstance(cause, unlikely)) for cause in causes
    )


def _serves_nothing(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and (status >= _SERVERS_OWN or status == _TOO_MANY_REQUESTS)


def _fault(cause: BaseException, folder: Path | str, space: str) -> str | None:
    """What is wrong and what to do, in words; None if this is no fault of the machine."""
    number = _number(cause)
    if number in _ADVICE:
        place = getattr(cause, "filename", None) or folder
        advice = space if _ADVICE[number] == _SPACE else _ADVICE[number]
        return f"{place}: {os.strerror(number).lower()}; {advice}"
    if isinstance(cause, RuntimeError) and _TORCH_WRITER.search(str(cause)):
        return f"{folder}: a file could not be written completely; {space}"
    if _is_of_memory(cause):
        return f"the memory does not suffice{_in_brackets(cause)}; {_MEMORY}"
    return _network_fault(cause)


def _network_fault(cause: BaseException) -> str | None:
    bases = {base.__name__ for base in type(cause).__mro__ if base.__module__.partition(".")[0] in _HTTP}
    if bases & _UNREACHED:
        return f"a server is not reached{_in_brackets(cause)}; check the network, and HF_HUB_OFFLINE"
    if _ANSWERED in bases and _serves_nothing(cause):
        return f"the Hub does not serve now{_in_brackets(cause)}; wait a while"
    return None


def _is_of_memory(cause: BaseException) -> bool:
    if isinstance(cause, MemoryError):
        return True
    is_gpus = type(cause).__name__ == "OutOfMemoryError" and type(cause).__module__.startswith("torch")
    return is_gpus or (isinstance(cause, RuntimeError) and _TORCH_MEMORY.search(str(cause)) is not None)


def _in_brackets(cause: BaseException) -> str:
    """The kind of an error and its first line."""
    first = next(iter(str(cause).strip().splitlines()), "").rstrip(".: ")
    return f" ({type(cause).__name__}{f': {first}' if first else ''})"


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
    found = _NUMBER.search(str(error))
    if found:
        return int(found[1] or found[2])
    # Only of an error of input or output: other texts may quote a row.
    words = (number for text, number in _WORDS.items() if isinstance(error, OSError) and text in str(error))
    return next(words, 0)
