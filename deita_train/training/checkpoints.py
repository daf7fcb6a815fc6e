"""Complete and damaged checkpoints, told apart by a record of every file and its size, written after all ranks saved.

transformers silently resumes from a checkpoint that lacks the optimizer or the random state, so a folder alone proves
nothing.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.integrations.deepspeed import deepspeed_config

from deita_train.models.published_files import TOKENIZER_FILES, copy_tokenizer
from deita_train.store.atomic_io import fsync_tree, remove_tree
from deita_train.training.sizes import CHECKPOINTS_KEPT

RECORD = "complete.json"


@dataclass(frozen=True)
class Writers:
    """The ranks that wrote a checkpoint: their number, accelerate's name for the launch, and DeepSpeed's ZeRO stage."""

    world_size: int
    distributed_type: str
    zero_stage: int | None = None

    def __str__(self) -> str:
        stage = "" if self.zero_stage is None else f", ZeRO-{self.zero_stage}"
        return f"{self.world_size} rank{'s' if self.world_size > 1 else ''} ({self.distributed_type}{stage})"


def zero_stage() -> int | None:
    """Return the ZeRO stage of this launch, None without DeepSpeed. Call after building the training arguments."""
    config = deepspeed_config()
    return None if config is None else int(config["zero_optimization"]["stage"])


def finish_checkpoint(checkpoint: Path, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerBase) -> None:
    """Turn a saved checkpoint into a model folder that can be trained from, and record it as complete.

    Call on rank 0, after a barrier.

    Args:
        checkpoint: The folder that all ranks have saved to.
        arguments: The training's arguments.
        tokenizer: A tokenizer that was loaded from a folder.
    """
    original = Path(tokenizer.name_or_path)
    assert original.is_dir(), original
    for name in TOKENIZER_FILES:
        (checkpoint / name).unlink(missing_ok=True)  # a re-saved tokenizer can split text differently
    copy_tokenizer(original, checkpoint)
    kind = str(arguments.distributed_state.distributed_type.name)
    write_record(checkpoint, Writers(arguments.world_size, kind, zero_stage()))


def write_record(checkpoint: Path, writers: Writers) -> None:
    """Record a checkpoint whose files are all written. Call on rank 0, after a barrier."""
    fsync_tree(checkpoint)
    temporary = checkpoint / f".{RECORD}.tmp"
    # A damaged checkpoint is overwritten in place, so an old record may be there; it is not part of the checkpoint.
    own = (checkpoint / RECORD, temporary)
    paths = [path for path in checkpoint.rglob("*") if path.is_file() and path not in own]
    files = {str(path.relative_to(checkpoint)): path.stat().st_size for path in paths}
    for part in ("trainer_state.json", "scheduler.pt", "rng_state"):
        assert any(name.startswith(part) for name in files), f"{checkpoint} was saved without {part}"
    assert any("optim" in name for name in files), f"{checkpoint} was saved without its optimizer"
    record = {"files": files, **asdict(writers)}
    temporary.write_text(json.dumps(record))
    temporary.replace(checkpoint / RECORD)


def newest_whole(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Find the newest whole checkpoint.

    Returns:
        The checkpoint, or None, and every newer damaged one with what is wrong with it.
    """
    refused: list[tuple[Path, str]] = []
    for checkpoint in _newest_first(folder):
        problem = find_damage(checkpoint)
        if problem is None:
            return checkpoint, refused
        refused.append((checkpoint, problem))
    return None, refused


def remove_older(folder: Path) -> None:
    """Remove all but the two newest whole checkpoints. Call on rank 0, once the newest is recorded.

    transformers would remove the oldest before the newest is recorded; a kill in between would leave only one.
    """
    checkpoints = _newest_first(folder)
    kept = [checkpoint for checkpoint in checkpoints if find_damage(checkpoint) is None][:CHECKPOINTS_KEPT]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            remove_tree(checkpoint)


def find_damage(checkpoint: Path) -> str | None:
    """Describe what is wrong with a checkpoint; None if it is whole."""
    record = _read_record(checkpoint)
    if record is None:
        return "it was not finished"
    for name, size in record["files"].items():
        try:
            found = (checkpoint / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


def writers_of(checkpoint: Path) -> Writers:
    """Return the ranks that wrote a whole checkpoint."""
    record = _read_record(checkpoint)
    assert record is not None, checkpoint
    # Records from earlier versions have no ZeRO stage.
    return Writers(record["world_size"], record["distributed_type"], record.get("zero_stage"))


def _read_record(checkpoint: Path) -> dict[str, Any] | None:
    """Read the record of a checkpoint; None if there is no readable one."""
    try:
        record = json.loads((checkpoint / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # any other fault is the disk's, not the checkpoint's
        return None
    known = isinstance(record, dict) and {"files", "world_size", "distributed_type"} <= record.keys()
    return record if known else None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step in a checkpoint's name."""
    return int(checkpoint.name.rsplit("-", 1)[1])
