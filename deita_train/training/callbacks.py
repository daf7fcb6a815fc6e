"""Callbacks of a training run: progress, history, complete checkpoints, a stop at the first loss that is not finite."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from deita_train.errors import UserError
from deita_train.training.checkpoints import finish_checkpoint


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


class StopAtNonFinite(TrainerCallback):
    """Ends the run at the first loss that is not finite, before a checkpoint can keep it."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Look at every logged loss; `logging_nan_inf_filter` is off so that none is hidden."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise UserError(
                f"the loss is {loss} at step {state.global_step}: training diverged. Lower trainer.learning_rate, "
                "lengthen trainer.warmup_steps, or look for broken rows; the last checkpoint before it is kept."
            )


class RecordCheckpoints(TrainerCallback):
    """Writes the completeness record once every rank has saved its part."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After a checkpoint was saved, on every rank."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            finish_checkpoint(checkpoint, args, kwargs["processing_class"])
