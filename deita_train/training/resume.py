"""From which checkpoint a training goes on."""

import os
from pathlib import Path

from deita_train.durable import remove_tree
from deita_train.errors import UserError
from deita_train.training.arguments import TrainingSettings
from deita_train.training.checkpoints import newest_whole, read_record


def checkpoint_to_resume(checkpoint_dir: Path, settings: TrainingSettings) -> Path | None:
    """The newest whole checkpoint, None if there is none; damaged ones are named in the log and removed.

    Raises :class:`UserError` when it was written by another number of DeepSpeed ranks.
    """
    checkpoint, refused = newest_whole(checkpoint_dir)
    for damaged, reason in refused:
        print(f"not resuming from {damaged.name}: {reason}", flush=True)  # noqa: T201 - goes to the stage's log
        if int(os.environ.get("RANK", "0")) == 0:
            remove_tree(damaged)  # it would take the place of a whole one when old checkpoints are rotated out
    if checkpoint is None:
        return None
    record = read_record(checkpoint)
    assert record is not None
    if record["distributed_type"] == "DEEPSPEED" and record["world_size"] != settings.world_size:
        raise UserError(
            f"{checkpoint} was written by {record['world_size']} DeepSpeed ranks and cannot be continued by "
            f"{settings.world_size}. Launch with as many, or remove {checkpoint_dir} to start anew."
        )
    print(f"resuming from {checkpoint.name}", flush=True)  # noqa: T201 - goes to the stage's log
    return checkpoint
