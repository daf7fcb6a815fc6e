"""Callbacks of a training run: progress, history, checkpoints when they are due, their record."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed import ReduceOp
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from deita_train.training.checkpoints import finish_checkpoint, remove_older
from deita_train.training.ranks import has_ranks, over_ranks
from deita_train.training.stopping import StopRequest


class ReportProgress(TrainerCallback):
    """Tells the run how many steps are done and the last loss."""

    def __init__(self, on_progress: Callable[[int, int, str, str], None]) -> None:
        self._on_progress = on_progress
        self._loss = ""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After each optimizer step."""
        self._on_progress(state.global_step, state.max_steps, "steps", self._loss)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Remember the loss that was logged."""
        if logs and "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}"


class LogHistory(TrainerCallback):
    """Hands on every number that trl logs beside a training loss, with its step."""

    def __init__(self, on_log: Callable[[dict[str, float], int], None]) -> None:
        self._on_log = on_log

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Leave out the totals at the end, which have no loss of a step."""
        if logs and "loss" in logs:
            numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
            self._on_log(numbers, state.global_step)


class SaveWhenDue(TrainerCallback):
    """Saves beside the steps where it is due anyway: when time has passed, and when the run is asked to stop.

    By time it waits for a step whose loss is logged: the losses since the last one are in no checkpoint. A stop does
    not wait, and logs its own step.
    """

    def __init__(self, request: StopRequest, minutes: float) -> None:
        self._request = request
        self._seconds = 60 * minutes
        self._saved = time.monotonic()
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first span begins when the model is loaded."""
        self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask all ranks, and decide the same on each."""
        late = state.is_world_process_zero and time.monotonic() - self._saved > self._seconds
        mine = [int(self._request.asked), int(late and control.should_log)]
        stop, due = map(bool, over_ranks(mine, ReduceOp.MAX, args.device))
        control.should_save |= stop or due
        if stop:
            control.should_log = control.should_training_stop = self.stopped = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A new span begins."""
        self._saved = time.monotonic()


class RecordCheckpoints(TrainerCallback):
    """Writes the completeness record once every rank has saved its part, and only then removes older checkpoints."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After a checkpoint was saved, on every rank."""
        if has_ranks():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            finish_checkpoint(checkpoint, args, kwargs["processing_class"])
            remove_older(checkpoint.parent)
        # A rank that ends meanwhile, as after a stop, would have the launcher end the others.
        if has_ranks():
            torch.distributed.barrier()
