"""The wish that a training stops: it ends its step, leaves a checkpoint, and the same command continues."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

# In a stage's work folder; the run writes it, and every rank on every machine sees it.
STOP_FILE = "stop"


class StopRequest:
    """SIGTERM, or a file: launchers pass a signal on with half a minute's grace, and a large checkpoint takes longer.

    As a context manager it takes SIGTERM until its end.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signalled = False
        self._previous: signal._HANDLER = signal.SIG_DFL

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._signalled or self._file.exists()

    def __enter__(self) -> Self:
        # Python hands signals to the main thread alone.
        assert threading.current_thread() is threading.main_thread(), "a training runs in a main thread"
        self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
