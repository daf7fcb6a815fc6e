"""trl's trainers on prepared token ids: batches of our own, the loss per conversation, pairs with their reference."""

from collections.abc import Callable
from typing import Any

import datasets
import torch
from torch.utils.data import Sampler
from transformers import Trainer
from trl import DPOTrainer, SFTTrainer

from deita_train.training.arguments import TrainingSettings
from deita_train.training.sampler import LengthGroupedBatches


class OwnBatches(Trainer):
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


class _SftTrainer(OwnBatches, SFTTrainer):
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


class _DpoTrainer(OwnBatches, DPOTrainer):
    """DPOTrainer on pairs whose token ids and reference log-probabilities are there already."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        assert {"ref_chosen_logps", "ref_rejected_logps"} <= set(dataset.column_names)
        return dataset


def trainer_class(settings: TrainingSettings) -> type[OwnBatches]:
    """The trainer of a kind of training and of its loss."""
    if settings.kind == "dpo":
        return _DpoTrainer
    return _PerConversationTrainer if settings.loss == "per_conversation" else _SftTrainer
