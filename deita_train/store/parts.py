"""The parts of one stage: their names, and what each leaves in the stage's work folder.

<work>/parts/division               how many parts the stage is divided into now
<work>/parts/3-of-64/               the progress and the error of one part
<work>/parts/3-of-64/done.json      what it did; there once it is done
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.store.atomic_io import look_anew, read_json, write_json_atomically, write_text_atomically

PARTS = "parts"
_DIVISION = "division"
_DONE = "done.json"
_NAME = re.compile(r"([0-9]+)/([0-9]+)")


@dataclass(frozen=True)
class PartName:
    """Part `number` of `of`, counted from 1."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> "PartName":
        """The part in ``3/64``.

        Raises:
            UserError: it is none.
        """
        found = _NAME.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"--part {text}: that is no part. Give its number and their number, such as 3/64 (1/64 is the first), "
                "or prepare."
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def folder(self, work_dir: Path) -> Path:
        """Where the part keeps what it leaves."""
        return work_dir / PARTS / self.file_name

    @property
    def file_name(self) -> str:
        """``3-of-64``."""
        return f"{self.number}-of-{self.of}"


@dataclass(frozen=True)
class PartRecord:
    """What a finished part did in its last start.

    Attributes:
        speed: what it computed, and how fast, as plain data.
        started: seconds since the epoch.
    """

    speed: Mapping[str, Any]
    started: float

    @classmethod
    def read(cls, folder: Path) -> "PartRecord | None":
        """The record of a part; None if it is not done."""
        path = folder / _DONE
        return cls(**read_json(path)) if path.exists() else None

    def write(self, folder: Path) -> None:
        """Mark the part as done."""
        write_json_atomically(folder / _DONE, asdict(self))


def part_records(work_dir: Path, of: int) -> dict[int, PartRecord]:
    """The records of the finished parts by number, where the stage has `of` parts."""
    found: dict[int, PartRecord] = {}
    for number in range(1, of + 1):
        folder = PartName(number, of).folder(work_dir)
        record = PartRecord.read(folder)
        if record is None:
            look_anew(folder)
            record = PartRecord.read(folder)
        if record is not None:
            found[number] = record
    return found


def count_done(work_dir: Path) -> tuple[int, int] | None:
    """How many parts are done, of how many; None if the stage is not divided."""
    of = read_division(work_dir)
    if of is None:
        return None
    return len([*(work_dir / PARTS).glob(f"*-of-{of}/{_DONE}")]), of


def write_division(work_dir: Path, of: int) -> None:
    """Note the number of parts; no part may be at work."""
    (work_dir / PARTS).mkdir(exist_ok=True)
    write_text_atomically(work_dir / PARTS / _DIVISION, str(of))


def read_division(work_dir: Path) -> int | None:
    """The number of parts; None if the stage is not divided."""
    path = work_dir / PARTS / _DIVISION
    return int(path.read_text()) if path.exists() else None
