"""One training on trl's SFTTrainer or DPOTrainer: prepared token ids in, a plain model folder out.

Pretraining the miniature, training a scorer and SFT differ only in their rows; DPO has pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback
from trl import DPOConfig, SFTConfig

from deita_train.errors import Stopped, UserError
from deita_train.inference.cpu_bfloat16 import OF_A_TRAINING, refuse_slow_bfloat16
from deita_train.training.arguments import CHECKPOINTING, TrainingSettings, planned_steps, training_arguments
from deita_train.training.callbacks import LogHistory, RecordCheckpoints, ReportProgress, SaveWhenDue
from deita_train.training.checkpoints import step_of
from deita_train.training.cpu_fsdp import let_fsdp_train_on_a_cpu
from deita_train.training.cpu_memory import keep_freed_memory
from deita_train.training.lora import lora_config
from deita_train.training.memory import ModelShape
from deita_train.training.micro_batch import choose_micro_batch
from deita_train.training.resume import checkpoint_to_resume
from deita_train.training.step_watch import StepWatch
from deita_train.training.stopping import STOP_FILE, StopRequest
from deita_train.training.trained_logits import check_trained_logits
from deita_train.training.trainers import OwnBatches, trainer_class

# Launches under which every rank holds the whole model.
_WHOLE_MODELS = ("NO", "MULTI_GPU", "MULTI_CPU")


@dataclass(frozen=True)
class TrainingOutcome:
    """The result of a training: its loss history, steps, micro-batch and speed.

    `rates` is :meth:`OwnBatches.rates` over the steps of this process, empty if none were left to do.
    """

    history: list[dict[str, float]]
    steps: int
    resumed_from: int | None
    micro_batch: int
    rates: dict[str, float]


def train(
    model_path: str,
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset,
    settings: TrainingSettings,
    checkpoint_dir: Path,
    model_dir: Path,
    on_progress: Callable[[int, int, str, str], None],
    on_log: Callable[[dict[str, float], int], None],
) -> TrainingOutcome:
    """Train `model_path` on `rows` and save the weights and configuration of the model, or of the adapter.

    Resumes from the newest whole checkpoint in `checkpoint_dir`. Every rank calls this in its main thread.

    Args:
        model_path: Folder of the base model.
        tokenizer: Its tokenizer, loaded from a folder.
        rows: Rows with the columns of `training/rows.py`.
        settings: How to train.
        checkpoint_dir: Folder for checkpoints. A file `stop` beside it requests a stop.
        model_dir: Folder for the result.
        on_progress: Called after each step with steps done, all steps, their unit, and a note.
        on_log: Called with every set of logged numbers and its step.

    Raises:
        Stopped: After SIGTERM or the file `stop`, once the step is done and a checkpoint saved.
        UserError: If the loss is not finite, a micro-batch does not fit into memory, or these ranks cannot read the
            newest checkpoint.
    """
    if settings.use_cpu:
        keep_freed_memory()
    if settings.use_cpu and settings.distributed_type == "FSDP":
        let_fsdp_train_on_a_cpu()
    # Before the arguments are built, after which DeepSpeed shards every new model.
    shape = ModelShape.of(Path(model_path), settings.peft)
    arguments = training_arguments(settings, len(rows), checkpoint_dir)
    arguments.pad_token = padding(tokenizer)
    keep_activations(arguments, settings, shape)
    _check_rows(arguments, settings, len(rows))
    resume = checkpoint_to_resume(checkpoint_dir, settings)
    lengths = list(rows["length"])
    choose_micro_batch(arguments, settings, shape, lengths, resume)
    with StopRequest(checkpoint_dir.parent / STOP_FILE) as request:
        saving, watch = SaveWhenDue(request, settings.checkpoint_minutes), StepWatch()
        callbacks: list[TrainerCallback] = [
            ReportProgress(on_progress), LogHistory(on_log), saving, RecordCheckpoints()
        ]  # fmt: skip
        trainer = trainer_class(settings)(
            settings=settings,
            rows=rows,
            watch=watch,
            model=model_path,
            args=arguments,
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=None if settings.peft is None else lora_config(settings.peft),
        )
        check_launch(trainer, settings)
        _check_precision(trainer, settings, lengths)
        if settings.check_logits and settings.distributed_type in _WHOLE_MODELS:
            check_trained_logits(trainer, rows[0])
        _train(trainer, resume)
        _check_end(trainer, saving)
    trainer.save_model(str(model_dir))
    return TrainingOutcome(
        history=loss_history(trainer.state.log_history),
        steps=trainer.state.global_step,
        resumed_from=step_of(resume) if resume else None,
        micro_batch=arguments.per_device_train_batch_size,
        rates=trainer.rates(),
    )


def keep_activations(arguments: SFTConfig | DPOConfig, settings: TrainingSettings, shape: ModelShape) -> None:
    """Take back our default of recomputing activations, which is for GPUs, from a model that cannot."""
    if not shape.recomputes and not any(name in settings.trainer for name in CHECKPOINTING):
        vars(arguments).update(dict.fromkeys(CHECKPOINTING, False))


def padding(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return what to pad with where the tokenizer has neither a padding nor an end of sequence, which trl would take.

    Any token will do: what pads is neither read nor trained.
    """
    if tokenizer.pad_token is not None or tokenizer.eos_token is not None:
        return None
    return str(tokenizer.convert_ids_to_tokens(0))


def _check_rows(arguments: SFTConfig | DPOConfig, settings: TrainingSettings, num_rows: int) -> None:
    size = settings.global_batch_size
    if arguments.dataloader_drop_last and num_rows < size:
        raise UserError(
            f"trainer.dataloader_drop_last leaves nothing to train on: {num_rows} rows do not fill a global batch of "
            f"{size}. Leave it out, or lower global_batch_size."
        )


def _train(trainer: OwnBatches, resume: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except torch.OutOfMemoryError as error:
        micro = trainer.args.per_device_train_batch_size
        smaller = (
            f"state trainer.per_device_train_batch_size: {micro // 2} or less"
            if micro > 1
            else "give it more ranks with zero3 or fsdp2, train an adapter, or cut the rows shorter"
        )
        raise UserError(
            f"the GPU's memory does not hold a micro-batch of {micro} ({error}): {smaller}. "
            "The same command then resumes from the last checkpoint."
        ) from error


def _check_precision(trainer: OwnBatches, settings: TrainingSettings, lengths: list[int]) -> None:
    """Refuse hours of training in bfloat16 on a CPU that takes minutes in float32."""
    assert trainer.model is not None
    in_bfloat16 = trainer.args.bf16 or trainer.model.dtype == torch.bfloat16
    if not settings.use_cpu or not in_bfloat16 or not lengths:
        return
    rows = settings.global_batch_size * planned_steps(len(lengths), settings.global_batch_size, settings.trainer)
    tokens = rows * sum(lengths) / len(lengths) / settings.world_size
    refuse_slow_bfloat16((trainer.flops_per_token or 0) * tokens, OF_A_TRAINING)


def _check_end(trainer: Trainer, saving: SaveWhenDue) -> None:
    state = trainer.state
    if saving.stopped and state.global_step < state.max_steps:
        raise Stopped(
            f"stopped as asked after step {state.global_step} of {state.max_steps}; its checkpoint is kept, and the "
            "same command continues."
        )


# What DPOTrainer logs besides the loss, and its names in our history.
_REWARDS = {"rewards/accuracies": "reward_accuracy", "rewards/margins": "reward_margin"}


def loss_history(log_history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the logged steps that have a training loss."""
    return [
        {
            "step": int(entry["step"]),
            "epoch": float(entry["epoch"]),
            "loss": float(entry["loss"]),
            "learning_rate": float(entry["learning_rate"]),
            **{ours: float(entry[theirs]) for theirs, ours in _REWARDS.items() if theirs in entry},
        }
        for entry in log_history
        if "loss" in entry
    ]


def check_launch(trainer: Trainer, settings: TrainingSettings) -> None:
    """Check that the ranks are what the launch file promised: FSDP on a CPU, for instance, becomes plain DDP."""
    state = trainer.accelerator.state
    got = (state.num_processes, str(state.distributed_type.name))
    promised = (settings.world_size, settings.distributed_type)
    if got != promised:
        raise UserError(
            f"the launch promised {promised[0]} ranks of {promised[1]} and {got[0]} of {got[1]} are training. "
            "Check the launch file against this machine's devices."
        )
