"""trl's trainers on prepared token ids: our own batches, the loss per conversation, precomputed references."""

from collections.abc import Callable, Iterator
from typing import Any

import datasets
import torch
from torch.utils.data import Sampler
from transformers import Trainer
from trl import DPOTrainer, SFTTrainer

from deita_train.inference.speed import peak_flops
from deita_train.training.arguments import TrainingSettings
from deita_train.training.sampler import LengthGroupedBatches
from deita_train.training.step_watch import (
    BESIDE,
    KeepRows,
    Rates,
    StepWatch,
    Timed,
    take_rows,
    training_flops_per_token,
)


class OwnBatches(Trainer):
    """A trainer with our batches, or transformers' own if `lengths` is None, that reports each step to `watch`.

    Every logged loss comes with the speed since the previous log, averaged over the ranks.
    """

    def __init__(self, *, lengths: list[int] | None, watch: StepWatch, **arguments: Any) -> None:
        self._lengths = lengths  # the trainer drops the column before it creates the sampler
        self._watch = watch
        super().__init__(**arguments)
        self.data_collator = KeepRows(self.data_collator)
        self.flops_per_token = training_flops_per_token(self.model)
        self._peak_flops = peak_flops(self.args.device, torch.bfloat16) if self.args.bf16 else None
        self.add_callback(watch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Fetch batches as transformers does, and remove what is not a model input."""
        timed = Timed(epoch_iterator)
        batches, num_items = super().get_batch_samples(timed, num_batches, device)
        self._watch.fetched(timed.seconds, *take_rows(batches))
        return batches, num_items

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Train as the trainer does, and report the loss to the watch."""
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self._watch.trained(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the speed to logs that have a loss. Every rank logs, so all of them call this."""
        if "loss" in logs:
            self._watch.end_span()
            logs |= self._mean(self._watch.span)
        super().log(logs, start_time)

    def rates(self) -> dict[str, float]:
        """Return the speed over all steps of this process; empty if there were none. Every rank must call this."""
        self._watch.end_span()
        return self._mean(self._watch.total)

    def _mean(self, rates: Rates) -> dict[str, float]:
        """Average the rates over the ranks."""
        mine = rates.numbers(self.flops_per_token, self._peak_flops)
        numbers = torch.tensor(list(mine.values()), dtype=torch.float64, device=self.args.device)
        mean: torch.Tensor = self.accelerator.reduce(numbers, reduction="mean")
        return dict(zip(mine, mean.tolist(), strict=True))

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> Sampler | None:
        if self._lengths is None:
            sampler: Sampler | None = super()._get_train_sampler(train_dataset)
            return sampler
        global_batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedBatches(self._lengths, global_batch, self.args.seed)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        names: Any = self._signature_columns
        self._signature_columns: Any = [*dict.fromkeys((*names, *BESIDE))]


class _SftTrainer(OwnBatches, SFTTrainer):
    """SFTTrainer on rows with labels."""


class _PerConversationTrainer(_SftTrainer):
    """SFTTrainer whose loss is the mean over a global batch's conversations of each one's mean over its tokens.

    trl divides the sum of all log-probabilities by the number of tokens in the global batch, over micro-batches and
    ranks. Here each conversation's log-probabilities are first divided by its own number of tokens, and conversations
    are counted instead. Every conversation has a token with a loss.
    """

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        rows = torch.tensor(sum(len(batch["ids"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(rows).sum() if self.args.average_tokens_across_devices else rows

    def compute_loss(self, model: Callable[..., Any], inputs: dict[str, Any], *how: Any, **named: Any) -> torch.Tensor:
        """Compute trl's loss, which reads only the model's outputs, on weighted log-probabilities."""

        def weighted(**arguments: Any) -> Any:
            outputs = model(**arguments)
            outputs.log_probs = outputs.log_probs / _tokens_of_own(outputs.label_mask, inputs.get("position_ids"))
            return outputs

        loss: torch.Tensor = super().compute_loss(weighted, inputs, *how, **named)
        return loss


def _tokens_of_own(label_mask: torch.Tensor, position_ids: torch.Tensor | None) -> torch.Tensor:
    """Count, for each position, the trained tokens of its conversation.

    Args:
        label_mask: Whether the token after each position is trained, bool [B, T - 1].
        position_ids: Of a packed row, [1, T], 0 where a conversation begins; None if each row is one conversation.

    Returns:
        The counts, [B, 1], or [1, T - 1] for a packed row.
    """
    if position_ids is None:
        return label_mask.sum(-1, keepdim=True)
    conversation = (position_ids[0] == 0).cumsum(0)[1:] - 1
    # Not bincount, which waits for the device to learn the number of conversations.
    counts = torch.zeros(len(conversation), device=conversation.device)
    counts.index_add_(0, conversation, label_mask[0].float())
    # The position between two conversations has no loss; 0 / 0 there would spread.
    return counts.clamp(min=1)[conversation][None]


class _DpoTrainer(OwnBatches, DPOTrainer):
    """DPOTrainer on pairs whose token ids and reference log-probabilities are precomputed."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        assert {"ref_chosen_logps", "ref_rejected_logps"} <= set(dataset.column_names)
        return dataset


def trainer_class(settings: TrainingSettings) -> type[OwnBatches]:
    """Return the trainer for a kind of training and its loss."""
    if settings.kind == "dpo":
        return _DpoTrainer
    return _PerConversationTrainer if settings.loss == "per_conversation" else _SftTrainer
