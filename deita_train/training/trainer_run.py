"""One training on trl's SFTTrainer or DPOTrainer: prepared token ids in, a plain model folder out.

Pretraining the miniature, training a scorer and SFT differ in their rows, and in nothing else; DPO has pairs.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from deita_train.durable import remove_tree
from deita_train.errors import UserError
from deita_train.training.adapters import lora_config
from deita_train.training.callbacks import LogHistory, RecordCheckpoints, ReportProgress, StopAtNonFinite
from deita_train.training.checkpoints import newest_whole, read_record, step_of
from deita_train.training.sampler import LengthGroupedBatches

# A run keeps about this many checkpoints' worth of progress; a kill costs at most one part.
_CHECKPOINTS_PER_RUN = 5
# Sequences per micro-batch unless stated; a preference pair is two.
_MICRO_BATCH_CPU, _MICRO_BATCH_GPU = 32, 8

Kind = Literal["sft", "dpo"]
Loss = Literal["per_token", "per_conversation"]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: trl's own fields in `trainer`, the rest stated once by the recipe.

    With peft's own fields in `peft` an adapter is trained, and the model stays as it is. `loss` is that of `sft`: the
    mean over the tokens of a global batch, or over its conversations the mean of each.
    """

    trainer: Mapping[str, Any]
    global_batch_size: int
    seed: int
    world_size: int
    distributed_type: str
    use_cpu: bool
    kind: Kind = "sft"
    peft: Mapping[str, Any] | None = None
    loss: Loss = "per_token"


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training left: the loss history, and how far it went."""

    history: list[dict[str, float]]
    steps: int
    seconds: float
    resumed_from: int | None


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
    """Train `model_path` on `rows` and save the model's weights and configuration, or the adapter's.

    The rows have the columns of `training/rows.py`. Resumes from the newest whole checkpoint in `checkpoint_dir`. Every
    rank calls this. Raises :class:`UserError` when the loss is not finite, or when a ZeRO checkpoint was written by
    another number of ranks.
    """
    arguments = training_arguments(settings, len(rows), checkpoint_dir)
    resume = _checkpoint_to_resume(checkpoint_dir, settings)
    callbacks: list[TrainerCallback] = [
        ReportProgress(on_progress), LogHistory(on_log), StopAtNonFinite(), RecordCheckpoints()
    ]  # fmt: skip
    trainer = _trainer_class(settings)(
        lengths=None if "train_sampling_strategy" in settings.trainer else list(rows["length"]),
        model=model_path,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=None if settings.peft is None else lora_config(settings.peft),
    )
    check_launch(trainer, settings)
    outcome = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_model(str(model_dir))
    return TrainingOutcome(
        history=loss_history(trainer.state.log_history),
        steps=trainer.state.global_step,
        seconds=float(outcome.metrics["train_runtime"]),
        resumed_from=step_of(resume) if resume else None,
    )


class _OwnBatches(Trainer):
    """A trainer with our batches; with transformers' own when `lengths` is None."""

    def __init__(self, *, lengths: list[int] | None, **arguments: Any) -> None:
        self._lengths = lengths  # the trainer drops the column before it asks for a sampler
        super().__init__(**arguments)

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> Sampler | None:
        if self._lengths is None:
            sampler: Sampler | None = super()._get_train_sampler(train_dataset)
            return sampler
        global_batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedBatches(self._lengths, global_batch, self.args.seed)


class _SftTrainer(_OwnBatches, SFTTrainer):
    """SFTTrainer on rows with labels."""


class _PerConversationTrainer(_SftTrainer):
    """SFTTrainer whose loss is a mean over the conversations of a global batch, each the mean over its own tokens.

    trl divides the sum of all log-probabilities by a number that it counts in the global batch, over micro-batches and
    ranks; here each row's are divided by its tokens before, and what is counted are the rows. Every row is one
    conversation and has a token with a loss.
    """

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        rows = torch.tensor(sum(len(batch["input_ids"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(rows).sum() if self.args.average_tokens_across_devices else rows

    def compute_loss(self, model: Callable[..., Any], inputs: dict[str, Any], *how: Any, **named: Any) -> torch.Tensor:
        """As trl's, which reads nothing of a model but its outputs."""
        assert "attention_mask" in inputs, "a packed row holds several conversations"

        def weighted(**arguments: Any) -> Any:
            outputs = model(**arguments)
            outputs.log_probs = outputs.log_probs / outputs.label_mask.sum(-1, keepdim=True)
            return outputs

        loss: torch.Tensor = super().compute_loss(weighted, inputs, *how, **named)
        return loss


class _DpoTrainer(_OwnBatches, DPOTrainer):
    """DPOTrainer on pairs whose token ids and reference log-probabilities are there already."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        assert {"ref_chosen_logps", "ref_rejected_logps"} <= set(dataset.column_names)
        return dataset


def _trainer_class(settings: TrainingSettings) -> type[_OwnBatches]:
    if settings.kind == "dpo":
        return _DpoTrainer
    return _PerConversationTrainer if settings.loss == "per_conversation" else _SftTrainer


def training_arguments(settings: TrainingSettings, num_rows: int, checkpoint_dir: Path) -> SFTConfig | DPOConfig:
    """trl's configuration from the recipe's fields, the batch arithmetic, and defaults that suit the device.

    The micro-batch is `per_device_train_batch_size` if stated, else the largest divisor of a rank's share of the global
    batch up to 32 sequences on a CPU and 8 on a GPU; accumulation follows.
    """
    stated = dict(settings.trainer)
    share = settings.global_batch_size // settings.world_size
    limit = (_MICRO_BATCH_CPU if settings.use_cpu else _MICRO_BATCH_GPU) // (2 if settings.kind == "dpo" else 1)
    micro = stated.pop("per_device_train_batch_size", None) or largest_divisor(share, limit)
    steps = planned_steps(num_rows, settings.global_batch_size, stated)
    logging_steps = _in_steps(stated.pop("logging_steps", None), steps) or max(1, steps // 200)
    save_steps = _in_steps(stated.pop("save_steps", None), steps) or _round_up(
        math.ceil(steps / _CHECKPOINTS_PER_RUN), logging_steps
    )
    device_defaults = {
        "bf16": not settings.use_cpu,
        "activation_checkpointing": not settings.use_cpu,
        "dataloader_pin_memory": not settings.use_cpu,
    }
    builders: dict[Kind, Callable[..., SFTConfig | DPOConfig]] = {"sft": _sft_config, "dpo": _dpo_config}
    return builders[settings.kind](
        {**device_defaults, "save_total_limit": 2, "report_to": "none", "disable_tqdm": True, **stated},
        output_dir=str(checkpoint_dir),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=settings.use_cpu,
        logging_steps=logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_steps,
    )


def _sft_config(stated: dict[str, Any], **owned: Any) -> SFTConfig:
    # A cosine is what the paper and its public code train with [paper App. A].
    return SFTConfig(
        **{"lr_scheduler_type": "cosine", **stated}, **owned, dataset_kwargs={"skip_prepare_dataset": True}
    )


def _dpo_config(stated: dict[str, Any], **owned: Any) -> DPOConfig:
    # The pairs are cut already, and the reference is a stage of its own.
    cut = {"max_length": None, "precompute_ref_log_probs": True}
    return DPOConfig(**{"lr_scheduler_type": "linear", **stated, **cut}, **owned)


def planned_steps(num_rows: int, global_batch_size: int, trainer: Mapping[str, Any]) -> int:
    """Optimizer steps of the whole run; the last batch of an epoch may be smaller."""
    max_steps = int(trainer.get("max_steps") or 0)
    if max_steps > 0:
        return max_steps
    return max(1, math.ceil(math.ceil(num_rows / global_batch_size) * float(trainer.get("num_train_epochs", 3))))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)


# What DPOTrainer logs beside the loss, by the names of our history.
_REWARDS = {"rewards/accuracies": "reward_accuracy", "rewards/margins": "reward_margin"}


def loss_history(log_history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The logged steps that carry a training loss."""
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
    """Compare what the ranks got with what the launch file promised: FSDP on a CPU, say, trains as plain DDP."""
    state = trainer.accelerator.state
    got = (state.num_processes, str(state.distributed_type.name))
    promised = (settings.world_size, settings.distributed_type)
    if got != promised:
        raise UserError(
            f"the launch promised {promised[0]} ranks of {promised[1]} and {got[0]} of {got[1]} are training. "
            "Check the launch file against this machine's devices."
        )


def _checkpoint_to_resume(checkpoint_dir: Path, settings: TrainingSettings) -> Path | None:
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


def _in_steps(stated: float | None, steps: int) -> int:
    """trl takes a number of steps, or below 1 a share of the run; 0 when nothing is stated."""
    if stated is None:
        return 0
    return math.ceil(stated * steps) if stated < 1 else int(stated)


def _round_up(number: int, multiple: int) -> int:
    # The first loss logged after a resume is wrong unless checkpoints fall on logging steps.
    return math.ceil(number / multiple) * multiple
