"""From which checkpoint a training goes on, and which ranks can go on with it."""

import math
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from deita_train.errors import UserError
from deita_train.store.atomic_io import remove_tree
from deita_train.training.arguments import TrainingSettings
from deita_train.training.checkpoints import Writers, newest_whole, writers_of, zero_stage


def checkpoint_to_resume(checkpoint_dir: Path, settings: TrainingSettings) -> Path | None:
    """The newest whole checkpoint, None if there is none; damaged ones are named in the log and removed.

    Call on every rank, once the training arguments are built and before the model is loaded. Raises :class:`UserError`
    when other ranks wrote it than can go on with it.
    """
    checkpoint, refused = newest_whole(checkpoint_dir)
    for damaged, reason in refused:
        _say(f"not resuming from {damaged.name}: {reason}")
        if _is_first():
            remove_tree(damaged)  # what it holds would lie beside the files that are saved again under its name
    if checkpoint is None:
        return None
    writers, ranks = writers_of(checkpoint), Writers(settings.world_size, settings.distributed_type, zero_stage())
    if _layout(writers) != _layout(ranks):
        raise UserError(
            f"{checkpoint} was written by {writers} and cannot be continued by {ranks}. There are three ways on: "
            "launch as it was written; start the stage anew with --fresh; or keep only the weights: copy that folder "
            "to another place and name the copy as the model of a new training, with a fresh optimizer."
        )
    _say(f"resuming from {checkpoint.name}{_change(writers, ranks)}")
    if settings.trainer.get("train_sampling_strategy") == "group_by_length":
        _say(
            "train_sampling_strategy: group_by_length gives the epoch after a restart another order, but for the first"
        )
    return checkpoint


class OrderOfEpoch(TrainerCallback):
    """Tells the sampler which epoch begins.

    A training that goes on within an epoch skips its first batches through one more wrapper around them. On several
    ranks the trainer's own word does not get through all of these, and the rest of a later epoch would be in the order
    of the first.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the batches are skipped."""
        batches = kwargs["train_dataloader"]
        steps = max(1, math.ceil(len(batches) / args.gradient_accumulation_steps))
        batches.set_epoch(state.global_step // steps)


def _layout(ranks: Writers) -> tuple[object, ...]:
    """What two launches must have in common for one to read the other's checkpoints.

    Under DDP, and in one process, a file holds the whole model or optimizer. FSDP's files are whole too, but others.
    DeepSpeed writes one for each rank's share.
    """
    if ranks.distributed_type == "DEEPSPEED":
        return "DEEPSPEED", ranks.zero_stage, ranks.world_size
    if ranks.distributed_type == "NO" or ranks.distributed_type.startswith("MULTI_"):
        return ("whole files",)
    return (ranks.distributed_type,)


def _change(writers: Writers, ranks: Writers) -> str:
    """What another number of ranks means, for the log."""
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
    """To the stage's log, once."""
    if _is_first():
        print(line, flush=True)  # noqa: T201
