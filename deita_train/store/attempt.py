"""What an attempt at a stage leaves in its work folder: its progress, its result, or its error."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deita_train.store.atomic_io import read_json, write_json_atomically

PROGRESS = "progress.json"
_RESULT = "result.json"
_ERROR = "error.json"


@dataclass(frozen=True)
class AttemptResult:
    """What rank 0 of a stage did, for the process that checks and publishes it."""

    rows_in: int
    rows_out: int
    drops: dict[str, int]
    metrics: dict[str, Any]
    device: str
    world_size: int
    threads: int
    started: str
    wall_seconds: float

    @classmethod
    def read(cls, work_dir: Path) -> "AttemptResult":
        """The result in a work folder."""
        return cls(**read_json(work_dir / _RESULT))

    def write(self, work_dir: Path) -> None:
        """Leave the result in a work folder."""
        write_json_atomically(work_dir / _RESULT, asdict(self))


@dataclass(frozen=True)
class AttemptError:
    """Why a stage ended early.

    Attributes:
        user_error: whether the user can fix it.
        stopped: whether somebody asked it to stop.
        passing: whether the same may succeed a little later.
    """

    rank: int
    message: str
    user_error: bool
    stopped: bool = False
    passing: bool = False

    @classmethod
    def read(cls, work_dir: Path) -> "AttemptError | None":
        """The error in a work folder; None when there is none."""
        path = work_dir / _ERROR
        return cls(**read_json(path)) if path.exists() else None

    def write(self, work_dir: Path) -> None:
        """Leave the error in a work folder, unless another rank failed first."""
        if not (work_dir / _ERROR).exists():
            write_json_atomically(work_dir / _ERROR, asdict(self))


def clear_attempt(work_dir: Path) -> None:
    """Remove what an earlier attempt left; checkpoints, shards and logs stay."""
    for name in (PROGRESS, _RESULT, _ERROR):
        (work_dir / name).unlink(missing_ok=True)
