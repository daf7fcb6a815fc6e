"""Which checkpoint a training resumes from, and which ranks can resume it."""

import os
from pathlib import Path

from deita_train.errors import UserError
from deita_train.store.atomic_io import remove_tree
from deita_train.training.arguments import TrainingSettings
from deita_train.training.checkpoints import Writers, newest_whole, writers_of, zero_stage


def checkpoint_to_resume(checkpoint_dir: Path, settings: TrainingSettings) -> Path | None:
    """Find the newest whole checkpoint; log and remove newer damaged ones.

    Call on every rank, after building the training arguments and before loading the model.

    Returns:
        The checkpoint, or None if there is none.

    Raises:
        UserError: If these ranks cannot read the checkpoint, because another kind of launch wrote it.
    """
    checkpoint, refused = newest_whole(checkpoint_dir)
    for damaged, reason in refused:
        _say(f"not resuming from {damaged.name}: {reason}")
        if _is_first():
            remove_tree(damaged)  # its files would mix with those saved again under its name
    if checkpoint is None:
        return None
    writers, ranks = writers_of(checkpoint), Writers(settings.world_size, settings.distributed_type, zero_stage())
    if _layout(writers) != _layout(ranks):
        raise UserError(
            f"{checkpoint} was written by {writers} and cannot be continued by {ranks}. You can "
            "launch it the way it was written; restart the stage with --fresh; or keep only the weights: copy that "
            "folder to another place and name the copy as the model of a new training, with a fresh optimizer."
        )
    _say(f"resuming from {checkpoint.name}{_change(writers, ranks)}")
    return checkpoint


def _layout(ranks: Writers) -> tuple[object, ...]:
    """Return what two launches must share for one to read the other's checkpoints.

    One process and DDP write the whole model and optimizer. FSDP's files are whole too, in its own format. DeepSpeed
    writes one file per rank.
    """
    if ranks.distributed_type == "DEEPSPEED":
        return "DEEPSPEED", ranks.zero_stage, ranks.world_size
    if ranks.distributed_type == "NO" or ranks.distributed_type.startswith("MULTI_"):
        return ("whole files",)
    return (ranks.distributed_type,)


def _change(writers: Writers, ranks: Writers) -> str:
    """Explain the effect of another number of ranks, for the log."""
    if writers.world_size == ranks.world_size:
        return ""
    return (
        f", written by {writers} and continued by {ranks}. The global batch stays, and the accumulation follows from "
        "it. Sums of floats differ in their last bits from those of an undisturbed training; where the model or the "
        "adapter has dropout, so do the random numbers"
    )


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _say(line: str) -> None:
    """Print to the stage's log, on one rank."""
    if _is_first():
        print(line, flush=True)  # noqa: T201
