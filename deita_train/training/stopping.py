"""A request to stop training: it finishes its step and saves a checkpoint, from which the same command continues."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

# In the stage's work folder. The run creates it, and every rank on every machine sees it.
STOP_FILE = "stop"


class StopRequest:
    """A stop requested by SIGTERM or by a file.

    Launchers kill their ranks half a minute after a signal, and a large checkpoint takes longer; a file has no such
    limit. Used as a context manager, it handles SIGTERM until it exits.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signalled = False
        self._previous: signal._HANDLER = signal.SIG_DFL

    @property
    def asked(self) -> bool:
        """Whether a stop was requested."""
        return self._signalled or self._file.exists()

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only.
        assert threading.current_thread() is threading.main_thread(), "a training runs in a main thread"
        self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
