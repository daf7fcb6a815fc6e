"""trl's trainers on prepared token ids: our own batches, the loss per conversation, precomputed references."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import datasets
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, Trainer
from trl import DPOTrainer, SFTTrainer

from deita_train.data.rendering import IGNORED
from deita_train.inference.speed import peak_flops
from deita_train.training.arguments import TrainingSettings
from deita_train.training.end_of_turn import GENERATION_CONFIG
from deita_train.training.rank_batches import BatchShape, RankBatches
from deita_train.training.sampler import ORDERS
from deita_train.training.step_shares import StepShares
from deita_train.training.step_watch import (
    BESIDE,
    KeepRows,
    Rates,
    StepWatch,
    Timed,
    take_rows,
    training_flops_per_token,
)

# Of a model's configuration. transformers and trl write the tokenizer's special tokens over it.
_SET_BY_TRAINERS = (
    "use_cache", "output_router_logits", "router_aux_loss_coef", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


class OwnBatches(Trainer):
    """A trainer with our batches that reports each step to `watch`.

    A step's loss is the mean over its global batch, however the batch is divided into micro-batches and among ranks.
    Every logged loss comes with the speed since the previous log, averaged over the ranks.
    """

    def __init__(
        self,
        *,
        settings: TrainingSettings,
        rows: datasets.Dataset,
        model: str | PreTrainedModel,
        watch: StepWatch,
        **arguments: Any,
    ) -> None:
        self._rows = rows
        self._lengths: list[int] = list(rows["length"])
        self._settings = settings
        self._watch = watch
        base = AutoConfig.from_pretrained(model) if isinstance(model, str) else deepcopy(model.config)
        self._base_generation = _generation_of(model, base)
        super().__init__(model=cast("PreTrainedModel", model), train_dataset=rows, **arguments)  # trl loads a path
        assert self.model is not None
        own: Any = self.model.config
        self._configs = [(own, base), (own.get_text_config(), base.get_text_config())]
        self._generation: Any = self.model.generation_config
        self.data_collator = KeepRows(self.data_collator, self._stand_in())
        self.flops_per_token = training_flops_per_token(self.model)
        self._peak_flops = peak_flops(self.args.device, torch.bfloat16) if self.args.bf16 else None
        self._step = StepShares(self.accelerator)
        self._num_tokens = 0
        self.add_callback(watch)

    def get_train_dataloader(self) -> DataLoader:
        """Load this rank's own micro-batches. accelerate would fill up an epoch's rest with rows of its beginning."""
        args, settings = self.args, self._settings
        order = ORDERS[settings.trainer.get("train_sampling_strategy")]
        size, micro = settings.global_batch_size, args.per_device_train_batch_size
        loader: DataLoader = DataLoader(
            self._remove_unused_columns(self._rows, "Training"),
            batch_sampler=RankBatches(
                order(self._lengths, size, settings.seed),
                len(self._rows),
                BatchShape(size, args.world_size, micro, args.dataloader_drop_last),
                args.process_index,
            ),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )
        # As for a single process: nothing is left to share out.
        prepared: DataLoader = prepare_data_loader(
            loader, args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Fetch batches as transformers does, and remove what is not a model input."""
        timed = Timed(epoch_iterator)
        batches, num_items = super().get_batch_samples(timed, num_batches, device)
        rows, tokens = take_rows(batches)
        self._watch.fetched(timed.seconds, rows, tokens)
        loss_tokens = [self._loss_tokens(batch) if ids else 0 for batch, ids in zip(batches, rows, strict=True)]
        self._step.begin([len(ids) for ids in rows], loss_tokens, tokens)
        return batches, num_items

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Train as the trainer does, and report the loss to the watch."""
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self._watch.trained(loss)
        self._step.next_micro_batch()
        if self._step.is_done:
            self._merge_metrics()
        return loss

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        """Compute the trainer's loss with this micro-batch's share in its step."""
        with self._step.gathering_rows(), replaced(self, self._weights()):
            return super().compute_loss(*arguments, **named)

    def _weights(self) -> dict[str, Any]:
        """Return the factors, by attribute, with which the trainer multiplies means over this micro-batch."""
        coefficient: float = vars(self)["router_aux_loss_coef"]
        return {"router_aux_loss_coef": coefficient * self._step.of_rows}

    def _loss_tokens(self, batch: Mapping[str, Any]) -> int:
        """Count a micro-batch's tokens, for a loss that is their mean."""
        return 0

    def _merge_metrics(self) -> None:
        """Replace the metrics of a step's micro-batches by their mean over its rows."""
        metrics: dict[str, list[float]] = vars(self)["_metrics"]["train"]
        self._num_tokens += self._step.tokens
        metrics.pop("num_tokens")  # counts what stands in for rows
        for name, values in metrics.items():
            metrics[name] = self._step.merged(values)
        metrics["num_tokens"] = [self._num_tokens]

    def _stand_in(self) -> dict[str, Any]:
        """Return what a rank computes, without any weight, while others have a row and it has none: a short row."""
        row: dict[str, Any] = self._rows[self._lengths.index(min(self._lengths))]
        return {**row, "labels": [IGNORED] * len(row["labels"])} if "labels" in row else row

    def save_model(self, *arguments: Any, **named: Any) -> None:
        """Save the model with what the base's configuration says of its use; trainers change that for themselves."""
        with ExitStack() as stack:
            for config, base in self._configs:
                names = [*_SET_BY_TRAINERS, *_dropouts(vars(base))]
                own = {name: getattr(base, name) for name in names if hasattr(base, name)}
                stack.enter_context(replaced(config, own))
                stack.enter_context(without(config, [name for name in names if name not in own]))
            stack.enter_context(self._generation_kept())
            super().save_model(*arguments, **named)

    @contextmanager
    def _generation_kept(self) -> Iterator[None]:
        """Let the model be saved with its base's settings of generation, and with every token that ends an answer.

        transformers refuses to write what it reads of many published models once trainers have changed a token of it:
        a temperature without `do_sample`.
        """
        own = self._generation
        kept = deepcopy(own)
        kept.bos_token_id, kept.pad_token_id = self._base_generation.bos_token_id, self._base_generation.pad_token_id

        def write(folder: str, **ignored: Any) -> None:
            kept.to_json_file(Path(folder) / GENERATION_CONFIG, keys_to_pop=["compile_config"])

        vars(own)["save_pretrained"] = write
        try:
            yield
        finally:
            del vars(own)["save_pretrained"]

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

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        names: Any = self._signature_columns
        self._signature_columns: Any = [*dict.fromkeys((*names, *BESIDE))]


class _SftTrainer(OwnBatches, SFTTrainer):
    """SFTTrainer on rows with labels."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # Whatever the model's forward accepts: trl's loss divides by the tokens of the whole step.
        self.model_accepts_loss_kwargs = True


class _PerConversationTrainer(_SftTrainer):
    """SFTTrainer whose loss is the mean over a global batch's conversations of each one's mean over its tokens.

    trl divides the sum of all log-probabilities by the number of tokens in the global batch, over micro-batches and
    ranks. Here each conversation's log-probabilities are first divided by its own number of tokens, and conversations
    are counted instead. Every conversation has a token with a loss.
    """

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        rows = torch.tensor(sum(len(batch["ids"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(rows).sum()

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
        return label_mask.sum(-1, keepdim=True).clamp(min=1)  # a row that stands in has none
    conversation = (position_ids[0] == 0).cumsum(0)[1:] - 1
    # Not bincount, which waits for the device to learn the number of conversations.
    counts = torch.zeros(len(conversation), device=conversation.device)
    counts.index_add_(0, conversation, label_mask[0].float())
    # The position between two conversations has no loss; 0 / 0 there would spread.
    return counts.clamp(min=1)[conversation][None]


class _DpoTrainer(OwnBatches, DPOTrainer):
    """DPOTrainer on pairs whose token ids and reference log-probabilities are precomputed."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        if cast("Any", self.args).disable_dropout:
            _disable_dropout(self.model)

    def _prepare_dataset(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        assert {"ref_chosen_logps", "ref_rejected_logps"} <= set(dataset.column_names)
        return dataset

    def _weights(self) -> dict[str, Any]:
        """Each loss is a mean over pairs; that of SFT, over the tokens of the chosen answers."""
        of_rows = self._step.of_rows
        shares = [self._step.of_loss_tokens if name == "sft" else of_rows for name in self.loss_types]
        weights = [weight * share for weight, share in zip(self.loss_weights, shares, strict=True)]
        return {**super()._weights(), "loss_weights": weights}

    def _loss_tokens(self, batch: Mapping[str, Any]) -> int:
        if "sft" not in self.loss_types:
            return 0
        chosen, _ = batch["completion_mask"].chunk(2)
        return int(chosen[:, 1:].sum())


def _generation_of(model: str | PreTrainedModel, config: Any) -> GenerationConfig:
    """Return how a model, or that of a folder, generates; without settings of its own, by its configuration."""
    if not isinstance(model, str):
        return deepcopy(cast("Any", model).generation_config)
    if (Path(model) / GENERATION_CONFIG).exists():
        return GenerationConfig.from_pretrained(model)
    return GenerationConfig.from_model_config(config)


def _dropouts(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the probabilities of dropout among the attributes of a module or a configuration."""
    return {name: value for name, value in values.items() if "drop" in name and isinstance(value, float)}


def _disable_dropout(model: Any) -> None:
    """Set every probability of dropout to 0. trl does so for layers of dropout; attention has it as a number."""
    configs = [model.config, model.config.get_text_config()]
    for owner in (*model.modules(), *configs):
        vars(owner).update(dict.fromkeys(_dropouts(vars(owner)), 0.0))


def trainer_class(settings: TrainingSettings) -> type[OwnBatches]:
    """Return the trainer for a kind of training and its loss."""
    if settings.kind == "dpo":
        return _DpoTrainer
    return _PerConversationTrainer if settings.loss == "per_conversation" else _SftTrainer


@contextmanager
def replaced(target: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Replace attributes for a while."""
    own = {name: getattr(target, name) for name in values}
    vars(target).update(values)
    try:
        yield
    finally:
        vars(target).update(own)


@contextmanager
def without(target: Any, names: Collection[str]) -> Iterator[None]:
    """Take attributes away for a while."""
    own = {name: value for name, value in vars(target).items() if name in names}
    for name in own:
        del vars(target)[name]
    try:
        yield
    finally:
        vars(target).update(own)
