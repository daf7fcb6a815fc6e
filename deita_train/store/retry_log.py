"""How often a stage was tried again after a fault that passes: a line for each time, kept with the stage's logs."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_LOGS = "logs"
_FILE = "retries{}.jsonl"


@dataclass(frozen=True)
class Retry:
    """One fault that passed.

    Attributes:
        message: what failed.
        waited_seconds: before the next try.
        time: when it failed.
        part: of the stage, such as `3/64`; empty for the whole.
    """

    message: str
    waited_seconds: float
    time: str
    part: str = ""


def note_retry(work_dir: Path, message: str, waited_seconds: float, part: str = "") -> None:
    """Add a line to the log of a stage; every part has a file of its own, because many may write at once."""
    retry = Retry(message, waited_seconds, time.strftime("%Y-%m-%d %H:%M:%S"), part)
    name = _FILE.format(f"-{part.replace('/', '-of-')}" if part else "")
    (work_dir / _LOGS).mkdir(parents=True, exist_ok=True)
    with (work_dir / _LOGS / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(retry), ensure_ascii=False) + "\n")


def read_retries(folder: Path) -> list[Retry]:
    """The retries of a stage by its work folder or its published artefact, in the order of time."""
    found = [retry for path in (folder / _LOGS).glob(_FILE.format("*")) for retry in _lines(path)]
    return sorted(found, key=lambda retry: retry.time)


def _lines(path: Path) -> Iterator[Retry]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield Retry(**json.loads(line))
        except ValueError:  # a kill in the middle of the line
            continue
