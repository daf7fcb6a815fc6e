"""Which checkpoint is whole: an own record of every file and its size, written after all ranks have saved.

transformers resumes without a word from a checkpoint that lacks the optimizer or the random state, so the presence of a
folder says nothing.
"""

import json
from pathlib import Path

from deita_train.durable import fsync_tree

RECORD = "complete.json"


def write_record(checkpoint: Path, world_size: int, distributed_type: str) -> None:
    """Record a checkpoint whose files are all written. Call on rank 0 after a barrier."""
    fsync_tree(checkpoint)
    temporary = checkpoint / f".{RECORD}.tmp"
    # A damaged checkpoint is saved again into its own folder, where an earlier record may lie: it is no part of it.
    own = (checkpoint / RECORD, temporary)
    paths = [path for path in checkpoint.rglob("*") if path.is_file() and path not in own]
    files = {str(path.relative_to(checkpoint)): path.stat().st_size for path in paths}
    for part in ("trainer_state.json", "scheduler.pt", "rng_state"):
        assert any(name.startswith(part) for name in files), f"{checkpoint} was saved without {part}"
    assert any("optim" in name for name in files), f"{checkpoint} was saved without its optimizer"
    record = {"files": files, "world_size": world_size, "distributed_type": distributed_type}
    temporary.write_text(json.dumps(record))
    temporary.replace(checkpoint / RECORD)


def newest_whole(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest checkpoint that is whole, and each newer one that is not, with the reason."""
    refused: list[tuple[Path, str]] = []
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        problem = find_damage(checkpoint)
        if problem is None:
            return checkpoint, refused
        refused.append((checkpoint, problem))
    return None, refused


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, None if it is whole."""
    record = read_record(checkpoint)
    if record is None:
        return "it was not finished"
    for name, size in record["files"].items():
        path = checkpoint / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def read_record(checkpoint: Path) -> dict | None:
    """The record of a checkpoint, None if there is none that can be read."""
    try:
        record: dict = json.loads((checkpoint / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    return int(checkpoint.name.rsplit("-", 1)[1])
