"""What a person sees during a run: one line per finished stage, and a live line for the current one."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from deita_train.store.atomic_io import read_json

_PLAIN_SECONDS = 30.0
# From less of its work than this, the time that a stage will take is not guessed.
_TELLING_SHARE = 0.03


class Display:
    """A live line on a terminal; a line every half minute in a log."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self._total = total
        self._number = 0
        self._label = ""
        self._progress_file: Path | None = None
        self._started = 0.0
        self._plain_at = 0.0
        self._live: Live | None = None
        self._expected: dict[str, float] = {}
        self._pending: list[str] = []

    def expect(self, expected: dict[str, float], pending: list[str]) -> None:
        """Set the mean seconds by kind of stage, and the kinds that are still to come."""
        self._expected, self._pending = expected, pending

    def start(self, label: str, cell: str, progress_file: Path | None, *, again: bool = False) -> None:
        """Begin a stage, or begin it again after a failure."""
        self._number += not again
        self._label = f"{label}{f'  ({cell})' if cell else ''}"
        self._progress_file = progress_file
        self._started = self._plain_at = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def tick(self) -> None:
        """Show the progress of the stage."""
        if self._live is not None:
            self._live.update(Text(self._line()))
        elif time.monotonic() - self._plain_at > _PLAIN_SECONDS:
            self._plain_at = time.monotonic()
            self.console.print(Text(self._line()), soft_wrap=True)

    def finish(self, outcome: str) -> None:
        """End the stage; its line stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        seconds = time.monotonic() - self._started
        self.console.print(
            Text(f"{self._counter()} {self._label:<44} {seconds:6.1f} s  {outcome}".rstrip()), soft_wrap=True
        )

    def skip(self, label: str, cell: str, why: str) -> None:
        """Show a stage that needs no work."""
        self._number += 1
        shown = f"{label}{f'  ({cell})' if cell else ''}"
        self.console.print(Text(f"{self._counter()} {shown:<44}           {why}", style="dim"), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line between the stages."""
        self.console.print(Text(f"{' ' * len(self._counter())} {text}", style="dim"), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)

    def _counter(self) -> str:
        width = len(str(self._total))
        return f"[{self._number:>{width}}/{self._total}]"

    def _line(self) -> str:
        elapsed = time.monotonic() - self._started
        parts = [f"{self._counter()} {self._label:<44} {elapsed:6.1f} s"]
        progress = self._progress()
        stage_left = None
        if progress is not None:
            parts += _told(progress)
            left = _seconds_left(progress)
            if left is not None:
                parts.append(f"about {_duration(left)} left")
                stage_left = None if progress["step"] else left  # what follows this step is not known yet
        run_left = self._run_left(stage_left)
        if run_left is not None:
            parts.append(f"run: about {_duration(run_left)} left")
        return "  ".join(parts)

    def _progress(self) -> dict[str, Any] | None:
        if self._progress_file is None:
            return None
        try:
            progress: dict[str, Any] = read_json(self._progress_file)
        except OSError:  # not begun, or just removed by the child that publishes
            return None
        return progress

    def _run_left(self, stage_left: float | None) -> float | None:
        """Seconds to the end of the run; None until every kind that is still to come has run once."""
        if any(kind not in self._expected for kind in self._pending) or stage_left is None:
            return None
        return stage_left + sum(self._expected[kind] for kind in self._pending)


def _told(progress: dict[str, Any]) -> list[str]:
    """What a stage says of itself: the step it is at, how much of it is done, and how fast."""
    step, made, seconds = progress["step"], progress["done"] - progress["first"], progress["seconds"]
    if not progress["total"]:
        return [step] if step else []
    told = [f"{f'{step} ' if step else ''}{progress['done']}/{progress['total']} {progress['unit']}"]
    if progress["detail"]:
        told.append(progress["detail"])
    elif step and seconds >= 1:
        told.append(f"{made / seconds:,.0f}/s")
    return told


def _seconds_left(progress: dict[str, Any]) -> float | None:
    """Seconds to the end of a stage or step, at its speed so far; None at its very beginning."""
    made, left = progress["done"] - progress["first"], progress["total"] - progress["done"]
    if made <= _TELLING_SHARE * (made + left):
        return None
    return float(progress["seconds"] * left / made)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
