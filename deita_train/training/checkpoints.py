"""Which checkpoint is whole: an own record of every file and its size, written after all ranks have saved.

transformers resumes without a word from a checkpoint that lacks the optimizer or the random state, so the presence of a
folder says nothing.
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
    """The ranks that write a checkpoint: how many, accelerate's name for their launch, and DeepSpeed's ZeRO stage."""

    world_size: int
    distributed_type: str
    zero_stage: int | None = None

    def __str__(self) -> str:
        stage = "" if self.zero_stage is None else f", ZeRO-{self.zero_stage}"
        return f"{self.world_size} rank{'s' if self.world_size > 1 else ''} ({self.distributed_type}{stage})"


def zero_stage() -> int | None:
    """The ZeRO stage of this launch, None without DeepSpeed. Call once the training arguments are built."""
    config = deepspeed_config()
    return None if config is None else int(config["zero_optimization"]["stage"])


def finish_checkpoint(checkpoint: Path, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a saved checkpoint a model folder that others can train from, then record it.

    Call on rank 0 after a barrier. `tokenizer` is one that was loaded from a folder.
    """
    original = Path(tokenizer.name_or_path)
    assert original.is_dir(), original
    for name in TOKENIZER_FILES:
        (checkpoint / name).unlink(missing_ok=True)  # saving a tokenizer again can change its tokens
    copy_tokenizer(original, checkpoint)
    kind = str(arguments.distributed_state.distributed_type.name)
    write_record(checkpoint, Writers(arguments.world_size, kind, zero_stage()))


def write_record(checkpoint: Path, writers: Writers) -> None:
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
    record = {"files": files, **asdict(writers)}
    temporary.write_text(json.dumps(record))
    temporary.replace(checkpoint / RECORD)


def newest_whole(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest checkpoint that is whole, and each newer one that is not, with the reason."""
    refused: list[tuple[Path, str]] = []
    for checkpoint in _newest_first(folder):
        problem = find_damage(checkpoint)
        if problem is None:
            return checkpoint, refused
        refused.append((checkpoint, problem))
    return None, refused


def remove_older(folder: Path) -> None:
    """Keep the newest whole checkpoints, two of them, and nothing else. Call on rank 0, when the newest is recorded.

    transformers would remove the oldest before the record of the newest, and whoever is killed between the two has one.
    """
    checkpoints = _newest_first(folder)
    kept = [checkpoint for checkpoint in checkpoints if find_damage(checkpoint) is None][:CHECKPOINTS_KEPT]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            remove_tree(checkpoint)


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, None if it is whole."""
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
    """Who wrote a whole checkpoint."""
    record = _read_record(checkpoint)
    assert record is not None, checkpoint
    # Records of earlier versions name no stage.
    return Writers(record["world_size"], record["distributed_type"], record.get("zero_stage"))


def _read_record(checkpoint: Path) -> dict[str, Any] | None:
    """The record of a checkpoint, None if there is none that can be read."""
    try:
        record = json.loads((checkpoint / RECORD).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and {"files", "world_size", "distributed_type"} <= record.keys()
    return record if known else None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    return int(checkpoint.name.rsplit("-", 1)[1])
