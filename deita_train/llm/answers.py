"""Every answer that was ever given, kept in files that are only added to, for all runs of a runs folder.

Each process writes a file of its own, so that processes need no lock, on network disks either. A line is a JSON object
that begins with a checksum of its rest. A line without its end was cut by a kill and is not read; neither is one whose
checksum does not fit.
"""

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from deita_train.data.numbered_keys import PlacesOfDigests
from deita_train.errors import UserError
from deita_train.llm.requests import ChatRequest
from deita_train.store.atomic_io import fsync_folder

_SUFFIX = ".jsonl"
_DIGITS = 16
_START_BITS = 48
_HEAD = len(b'{"checksum":"') + _DIGITS + len(b'",')


@dataclass(frozen=True)
class Answer:
    """What a model said; the numbers of tokens are None if the server does not tell them.

    `first_token` has the log-probabilities of the likeliest first tokens where they were asked for; None otherwise, or
    if the server does not tell them.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    first_token: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as a line has them."""
        fields = asdict(self)
        return fields if self.first_token is not None else {k: v for k, v in fields.items() if k != "first_token"}


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: a name for the reason (`deadline`, `server_error`, `malformed`...) and what was seen."""

    reason: str
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """The fields as a line has them."""
        return asdict(self)


class AnswerStore:
    """The answers in a folder, by the key of their request; failures are kept too, and never served as answers.

    In memory are only the places of the lines, some forty bytes each. If two processes answered the same request, the
    answer in the older file counts, or the one that was served first. The methods may be called from several threads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Where the lines are: the number of the file, and from the bit _START_BITS down the place in it.
        self._answers = PlacesOfDigests()
        self._failures = PlacesOfDigests()
        self._files: dict[Path, int] = {}
        self._read_up_to: dict[Path, int] = {}
        self._damaged = 0
        self._lock = threading.RLock()
        self._syncing = threading.Lock()
        self._own: _OwnFile | None = None
        self.refresh()

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    @property
    def damaged_lines(self) -> int:
        """Whole lines that were not read because their checksum does not fit."""
        return self._damaged

    def __len__(self) -> int:
        """The number of answered requests."""
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer to a request, if there is one in what was read so far."""
        with self._lock:
            line = self._answers.get(bytes.fromhex(key))
        return None if line is None else Answer(**self._read(line)["answer"])

    def failure(self, key: str) -> Failure | None:
        """The last failure of a request, whether or not it was answered afterwards."""
        with self._lock:
            line = self._failures.get(bytes.fromhex(key))
        return None if line is None else Failure(**self._read(line)["failure"])

    def refresh(self) -> None:
        """Read what other processes have added."""
        with self._lock:
            for file in sorted(self._folder.glob(f"*{_SUFFIX}")):
                if self._own is None or file != self._own.path:
                    self._read_further(file)

    def add(self, key: str, request: ChatRequest, answer: Answer | Failure, model: str | None = None) -> None:
        """Keep an answer or a failure; when this returns, it outlives a power cut.

        Args:
            key: of the request.
            request: what was asked, kept beside it for a reader.
            answer: what came.
            model: the model's name, for a reader.

        Raises:
            OSError: it cannot be written; what was kept before stays.
        """
        self.append(key, request, answer, model)
        self.sync()

    def append(self, key: str, request: ChatRequest, answer: Answer | Failure, model: str | None = None) -> None:
        """The same, but durable only with the next `sync`; until then it outlives the death of this process alone."""
        kind = "answer" if isinstance(answer, Answer) else "failure"
        body = {"key": key, kind: answer.as_dict(), "model": model, "request": request.as_dict()}
        line = _line(body)
        with self._lock:
            own = self._own_file()
            try:
                start = own.append(line)
            except OSError:
                self.close()  # its last line may be cut, so the next one goes into a new file
                raise
            self._index(key, kind, own.path, start)

    def sync(self) -> None:
        """Make everything durable that was appended before; calls at the same time share the work."""
        with self._syncing:
            own = self._own
            if own is not None:
                own.sync()

    def close(self) -> None:
        """Let go of this process's file; the next answer goes into a new one."""
        with self._lock, self._syncing:
            if self._own is not None:
                self._read_up_to[self._own.path] = self._own.size
                self._own.close()
                self._own = None

    def _own_file(self) -> "_OwnFile":
        # A forked process inherits the object, and must not write into its parent's file.
        if self._own is not None and self._own.process != os.getpid():
            self.close()
        if self._own is None:
            self._own = _OwnFile(self._folder)
        return self._own

    def _read_further(self, file: Path) -> None:
        known = self._read_up_to.get(file, 0)
        if file.stat().st_size <= known:
            return
        with file.open("rb") as lines:
            lines.seek(known)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # being written, or cut by a kill
                body = _body(line)
                if body is None:
                    self._damaged += 1
                else:
                    kind = "answer" if "answer" in body else "failure"
                    self._index(body["key"], kind, file, known)
                known += len(line)
        self._read_up_to[file] = known

    def _index(self, key: str, kind: str, file: Path, start: int) -> None:
        line = (self._files.setdefault(file, len(self._files)) << _START_BITS) + start
        if kind == "answer":
            self._answers.put(bytes.fromhex(key), line, replace=False)
        else:
            self._failures.put(bytes.fromhex(key), line, replace=True)

    def _read(self, line: int) -> dict[str, Any]:
        number, start = divmod(line, 1 << _START_BITS)
        path = next(islice(self._files, number, None))
        with path.open("rb") as file:
            file.seek(start)
            body = _body(file.readline())
        if body is None:
            raise UserError(f"{path} has been changed from outside; restore it, or remove it and run again.")
        return body


class _OwnFile:
    """The file that this process adds to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Names sort by age; the random part is for processes of several machines.
        self.path = folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}{_SUFFIX}"
        self.process = os.getpid()
        self.size = 0
        self._synced = 0
        self._file = self.path.open("xb", buffering=0)
        for changed in (folder, folder.parent):
            fsync_folder(changed)

    def append(self, line: bytes) -> int:
        """Add a line; where it begins."""
        start, left = self.size, memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.size += len(line)
        return start

    def sync(self) -> None:
        """Make what was added before durable."""
        size = self.size
        if size > self._synced:
            os.fsync(self._file.fileno())
            self._synced = size

    def close(self) -> None:
        """Add nothing more."""
        with suppress(OSError):  # of a disk that has failed before
            self.sync()
        self._file.close()


def _line(body: dict[str, Any]) -> bytes:
    rest = _json(body)[1:] + b"\n"
    return _head(rest) + rest


def _head(rest: bytes) -> bytes:
    return f'{{"checksum":"{hashlib.sha256(rest).hexdigest()[:_DIGITS]}",'.encode("ascii")


def _json(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _body(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line; None if it is damaged."""
    if line[:_HEAD] != _head(line[_HEAD:]):
        return None
    body: dict[str, Any] = json.loads(line)
    return body
