"""The account that marks a run's folder as a rehearsal's: what was replaced, stage by stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deita_train.store.atomic_io import read_json

REHEARSAL = "rehearsal.json"
MARK = "REHEARSAL"


@dataclass(frozen=True)
class RehearsedStage:
    """A stage of a rehearsal.

    Attributes:
        label: the stage's.
        here: what the rehearsal had in the place of the recipe's values, each with its path.
        real: what the real run will have there.
    """

    label: str
    here: tuple[str, ...]
    real: tuple[str, ...]


def is_rehearsal(run_dir: Path) -> bool:
    """Whether a run's folder is a rehearsal's."""
    return (run_dir / REHEARSAL).is_file()


def read_rehearsal(run_dir: Path) -> tuple[RehearsedStage, ...]:
    """The stages of a rehearsal; none where the folder is a real run's."""
    if not is_rehearsal(run_dir):
        return ()
    stages: list[dict[str, Any]] = read_json(run_dir / REHEARSAL)["stages"]
    return tuple(RehearsedStage(one["label"], tuple(one["here"]), tuple(one["real"])) for one in stages)
