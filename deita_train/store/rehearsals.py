"""The account that marks a run's folder as a rehearsal's: what was replaced, stage by stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deita_train.store.atomic_io import read_json

REHEARSAL = "rehearsal.json"
MARK = "REHEARSAL"


@dataclass(frozen=True)
class Replaced:
    """One value of the recipe: its name, what the real run will have, and what the rehearsal had, in words."""

    name: str
    real: str
    here: str


@dataclass(frozen=True)
class RehearsedStage:
    """A stage of a rehearsal, by its label, and what of the recipe it had otherwise than the real run will."""

    label: str
    replaced: tuple[Replaced, ...]

    @property
    def in_words(self) -> str:
        """All of it in one line; what the real run will have comes first."""
        told = (f"{one.name}: {one.real or 'nothing'} -> {one.here or 'nothing'}" for one in self.replaced)
        return "; ".join(told) or "as in the real run, but for what it reads"


def is_rehearsal(run_dir: Path) -> bool:
    """Whether a run's folder is a rehearsal's."""
    return (run_dir / REHEARSAL).is_file()


def read_rehearsal(run_dir: Path) -> tuple[RehearsedStage, ...]:
    """The stages of a rehearsal; none where the folder is a real run's."""
    if not is_rehearsal(run_dir):
        return ()
    stages: list[dict[str, Any]] = read_json(run_dir / REHEARSAL)["stages"]
    return tuple(
        RehearsedStage(stage["label"], tuple(Replaced(**one) for one in stage["replaced"])) for stage in stages
    )
