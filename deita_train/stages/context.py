"""What a stage receives and returns: plain data, so that a stage knows nothing of recipes or runs."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Progress:
    """A small file through which a stage reports progress. Only rank 0 writes it, at most five times a second.

    It says how long the stage has been at this and how much was done before, so that a reader knows the time left: a
    stage that resumes begins in the middle.
    """

    def __init__(self, path: Path | None, step: str = "") -> None:
        self._path = path
        self._step = step
        self._last = 0.0
        self._begun: tuple[float, int] | None = None  # when, and how much was done then

    def of_step(self, step: str) -> "Progress":
        """The same for a step of the stage, which is shown by itself, with its own rate and time left."""
        return Progress(self._path, step)

    def update(self, done: int, total: int, unit: str, detail: str = "") -> None:
        """Report that `done` of `total` units are done; the first call, before the first unit, starts the clock."""
        now = time.monotonic()
        self._begun = self._begun or (now, done)
        if self._path is None or (now - self._last < 0.2 and done < total):
            return
        self._last = now
        temporary = self._path.with_suffix(".tmp")
        begun, first = self._begun
        told = {"done": done, "total": total, "unit": unit, "detail": detail, "step": self._step}
        told |= {"first": first, "seconds": now - begun}
        temporary.write_text(json.dumps(told))
        temporary.replace(self._path)


def _log_nothing(values: Mapping[str, float], step: int) -> None:
    """The default log: nobody tracks the stage."""


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`, from 1, of a stage that batch inference makes.

    `join(speed)` is called once the part is computed, with how fast it was. Where other parts are left to do, or at
    work, it gives None. Otherwise nobody else works on the stage until this process ends, and it gives the speeds of
    all parts: this process then joins them.
    """

    number: int
    of: int
    join: Callable[[Any], list[Any] | None]

    @property
    def file_name(self) -> str:
        """As part of a file's name: `3-of-64`."""
        return f"{self.number}-of-{self.of}"


@dataclass(frozen=True)
class StageContext:
    """One stage in one process; `log` takes the numbers of one step to wherever the recipe logs, and `reusable` are
    published artefacts in which it may find again what it would compute; ranks other than 0 have none. `part` is what
    this process does of the stage, None for all of it. `shared_dir` is where passes of one run leave prepared rows for
    one another; None where no other pass would read them."""

    kind: str
    label: str
    identity: Mapping[str, Any]
    runtime: Mapping[str, Any]
    parents: Mapping[str, Path]
    work_dir: Path
    rank: int
    world_size: int
    progress: Progress
    log: Callable[[Mapping[str, float], int], None] = _log_nothing
    reusable: tuple[Path, ...] = ()
    part: Part | None = None
    shared_dir: Path | None = None

    @property
    def data_dir(self) -> Path:
        """Where a stage writes its table."""
        return self.work_dir / "data"

    @property
    def model_dir(self) -> Path:
        """Where a stage writes its model."""
        return self.work_dir / "model"

    @property
    def files_dir(self) -> Path:
        """Where a stage writes files that other tools read."""
        return self.work_dir / "files"

    @property
    def prepared_dir(self) -> Path:
        """What rank 0 prepared before the ranks started."""
        return self.work_dir / "prepared"

    @property
    def distributed_type(self) -> str:
        """accelerate's name for the launch once its ranks have started."""
        promised = str(self.runtime["launch"]["distributed_type"])
        return "MULTI_CPU" if promised == "MULTI_GPU" and self.use_cpu else promised

    @property
    def use_cpu(self) -> bool:
        """Whether the launch runs on CPUs."""
        return bool(self.runtime["launch"]["use_cpu"])


@dataclass(frozen=True)
class StageResult:
    """What a stage did: rows in = rows out + drops, and the metrics for the report."""

    rows_in: int
    rows_out: int
    drops: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
