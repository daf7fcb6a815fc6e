"""Training callbacks: progress, loss history, extra checkpoints and their completeness records."""

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
    """Reports the number of finished steps and the last loss to the run."""

    def __init__(self, on_progress: Callable[[int, int, str, str], None]) -> None:
        self._on_progress = on_progress
        self._loss = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the steps that an earlier attempt has done, or none."""
        self._on_progress(state.global_step, state.max_steps, "steps", "")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the step."""
        self._on_progress(state.global_step, state.max_steps, "steps", self._loss)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Remember the logged loss."""
        if logs and "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}"


class LogHistory(TrainerCallback):
    """Forwards every number that trl logs along with a training loss, and its step."""

    def __init__(self, on_log: Callable[[dict[str, float], int], None]) -> None:
        self._on_log = on_log

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Forward the numbers, except the totals at the end, which belong to no step."""
        if logs and "loss" in logs:
            numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
            self._on_log(numbers, state.global_step)


class SaveWhenDue(TrainerCallback):
    """Saves extra checkpoints: after `minutes` without one, and when the run is asked to stop.

    A timed save waits for a step whose loss is logged, because no checkpoint holds the losses since the last log. A
    stop does not wait and logs its own step.
    """

    def __init__(self, request: StopRequest, minutes: float) -> None:
        self._request = request
        self._seconds = 60 * minutes
        self._saved = time.monotonic()
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock once the model is loaded."""
        self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Combine all ranks' requests, so that every rank decides the same."""
        late = state.is_world_process_zero and time.monotonic() - self._saved > self._seconds
        mine = [int(self._request.asked), int(late and control.should_log)]
        stop, due = map(bool, over_ranks(mine, ReduceOp.MAX, args.device))
        control.should_save |= stop or due
        if stop:
            control.should_log = control.should_training_stop = self.stopped = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Restart the clock."""
        self._saved = time.monotonic()


class RecordCheckpoints(TrainerCallback):
    """Records a checkpoint as complete once every rank has saved its part, and only then removes older ones."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called on every rank after it has saved."""
        if has_ranks():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            finish_checkpoint(checkpoint, args, kwargs["processing_class"])
            remove_older(checkpoint.parent)
        # If a rank exited now, as after a stop, the launcher would kill the others.
        if has_ranks():
            torch.distributed.barrier()
