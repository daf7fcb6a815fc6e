"""A training tried before anything runs: its arguments, model options, optimizer, scheduler and loss, once each.

The model is a tiny copy of the real one, and the rows are made up, so that a wrong value or a missing package is told
within a second and not after hours of scoring. What fails without any field of the recipe as well is no mistake of the
recipe's: it is reported as not tried.
"""

import contextlib
import io
import logging as python_logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import is_liger_kernel_available, logging
from trl import DPOTrainer, SFTTrainer

from deita_train.errors import UserError, is_network_fault, raise_machine_fault
from deita_train.models.tiny_copy import VOCABULARY, NotCopied, tiny_copy
from deita_train.training.arguments import CHECKPOINTING, TrainingSettings, planned_steps, training_arguments
from deita_train.training.lora import lora_config, try_adapter

# Rows of a training whose number is not known before its data is read; they decide how many steps a scheduler has.
_ASSUMED_BATCHES = 100
_TOKENS = list(range(3, 15))
_REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
# What a trial on the CPU cannot try for a launch on GPUs.
_OF_GPUS = ("bf16", "fp16", "tf32", "activation_offloading", "dataloader_pin_memory")
# What would start processes, or orders and leaves out rows of the real data.
_OF_DATA = (
    "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_persistent_workers",
    "dataloader_multiprocessing_context", "dataloader_drop_last", "train_sampling_strategy",
)  # fmt: skip
# Fields of which one may need another.
_TOGETHER = (
    ("optim", "optim_args", "optim_target_modules"),
    ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    ("loss_type", "loss_weights", "label_smoothing", "f_divergence_type", "f_alpha_divergence_coef", "use_weighting"),
)
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class TrialProblem:
    """What would stop a training.

    Attributes:
        path: The field, below the training's section.
        text: What is wrong.
    """

    path: str
    text: str


@dataclass(frozen=True)
class TrialResult:
    """What would stop a training, and why something of it could not be tried."""

    problems: tuple[TrialProblem, ...] = ()
    untried: str | None = None


def try_training(
    config: Any | None, settings: TrainingSettings, *, merge_adapter: bool = False, elsewhere: bool = False
) -> TrialResult:
    """Try a training on a tiny copy of its model, on the CPU.

    Args:
        config: The model's transformers configuration; None for a small LLaMA in its place.
        settings: How the training will run.
        merge_adapter: Whether an adapter will be merged.
        elsewhere: Whether it runs on another machine, whose packages are unknown here.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        adapter = _adapter_problem(config, settings, Path(folder), merge=merge_adapter)
        if adapter:
            settings = replace(settings, peft=None)
        try:
            found = _Trial(config, settings, Path(folder)).result(elsewhere=elsewhere)
        except Exception as error:  # whatever an architecture raises when it is made small
            raise_machine_fault(error, tempfile.gettempdir())
            found = TrialResult(untried=f"no tiny copy of its model can be made ({_words(error)})")
        return replace(found, problems=(*adapter, *found.problems))


def stand_in_config() -> LlamaConfig:
    """A small LLaMA, in place of a model whose configuration is not at hand."""
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )


def _adapter_problem(
    config: Any | None, settings: TrainingSettings, folder: Path, *, merge: bool
) -> tuple[TrialProblem, ...]:
    """Add the adapter to an empty model of the real shape; what is wrong with it, or nothing."""
    if settings.peft is None or config is None:
        return ()
    shape = folder / "shape"
    config.save_pretrained(shape)
    try:
        try_adapter(settings.peft, shape, merge=merge)
    except UserError as error:
        path, _, text = str(error).partition(": ")
        return (TrialProblem(path, text),)
    except Exception as error:  # no such model can be made empty; the stage itself will say so
        raise_machine_fault(error, folder)
    return ()


class _Trial:
    """A training on a tiny model: each of its parts is built by a method from the trainer's fields."""

    def __init__(self, config: Any | None, settings: TrainingSettings, folder: Path) -> None:
        left_out = _OF_DATA if settings.use_cpu else (*_OF_DATA, *_OF_GPUS)
        stated = {name: value for name, value in settings.trainer.items() if name not in left_out}
        if stated.get("optim_target_modules") is not None:
            stated["optim_target_modules"] = "all-linear"  # a tiny copy has the first layers only
        if not settings.use_cpu:
            stated = _without_kernels(stated)
        precision = settings.mixed_precision if settings.use_cpu else None
        self._settings = replace(settings, trainer=stated, use_cpu=True, quantization=None, mixed_precision=precision)
        self._model, self._out = folder / "model", folder / "out"
        model = tiny_copy(stand_in_config() if config is None else config)
        model.save_pretrained(self._model)
        # A training on GPUs recomputes activations unless it is told otherwise.
        self._recomputes = not settings.use_cpu and model.supports_gradient_checkpointing
        self._rows = _pairs() if settings.kind == "dpo" else _conversations()

    def result(self, *, elsewhere: bool) -> TrialResult:
        """Try one part after another; a field that stops one part is left out for those after it."""
        fields, found = dict(self._settings.trainer), list[TrialProblem]()
        for part in (self._trainer, self._optimizer, self._scheduler, self._loss):
            error = _error(part, fields)
            if error is None:
                continue
            unstated = _error(part, {})
            if unstated is not None and part == self._loss and self._passes_without_adapter():
                return TrialResult(
                    (*found, TrialProblem("peft", f"the loss cannot be computed with it: {_words(unstated)}"))
                )
            if unstated is not None:
                return TrialResult(tuple(found), _words(unstated))
            blamed = _blamed(part, fields)
            found += [
                TrialProblem(f"trainer.{name}", _words(wrong))
                for name, wrong in blamed.items()
                if not (elsewhere and isinstance(wrong, ImportError))
            ]
            fields = {name: value for name, value in fields.items() if name not in blamed}
        return TrialResult(tuple(found))

    def _passes_without_adapter(self) -> bool:
        """Whether the loss, which fails without any field, can be computed without the adapter."""
        whole = self._settings
        self._settings = replace(whole, peft=None)
        try:
            return whole.peft is not None and _error(self._loss, {}) is None
        finally:
            self._settings = whole

    def _trainer(self, fields: Fields) -> Any:
        if self._recomputes and not any(name in fields for name in CHECKPOINTING):
            fields = {**fields, CHECKPOINTING[0]: True}
        settings = replace(self._settings, trainer=fields)
        num_rows = _ASSUMED_BATCHES * settings.global_batch_size
        arguments = training_arguments(settings, num_rows, self._out)
        if arguments.use_liger_kernel and not is_liger_kernel_available():
            raise ImportError("it needs the package liger-kernel, which is not installed")
        if arguments.activation_offloading:
            raise ValueError("it moves activations from a GPU, and there is none")
        makes: Any = _Pairs if settings.kind == "dpo" else SFTTrainer
        return makes(
            model=str(self._model),
            args=arguments,
            train_dataset=self._rows,
            processing_class=_tokenizer(),
            peft_config=None if settings.peft is None else lora_config(_everywhere(settings.peft)),
        )

    def _optimizer(self, fields: Fields) -> None:
        self._trainer(fields).create_optimizer()

    def _scheduler(self, fields: Fields) -> None:
        """Make the scheduler, and ask it for the rate at the beginning, in the middle and at the end."""
        size = self._settings.global_batch_size
        steps = planned_steps(_ASSUMED_BATCHES * size, size, fields)
        trainer = self._trainer(fields)
        optimizer = torch.optim.SGD(trainer.model.parameters(), lr=trainer.args.learning_rate)
        scheduler: Any = trainer.create_scheduler(steps, optimizer)
        for step in (0, steps // 2, steps - 1):
            for rate in scheduler.lr_lambdas:
                rate(step)

    def _loss(self, fields: Fields) -> None:
        """Compute the loss of a batch; of pairs as at a training's first step, where the reference is the model."""
        trainer = self._trainer(fields)
        _recompute(trainer)
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        with trainer.compute_loss_context_manager():
            if self._settings.kind == "dpo":
                references = trainer.compute_ref_log_probs(trainer.model, batch)
                batch |= dict(zip(_REFERENCES, references, strict=True))
            loss = trainer.compute_loss(trainer.model, batch)
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"the loss is {float(loss)} before the first step")


def _recompute(trainer: Any) -> None:
    """Let the model recompute its activations if the trainer's arguments say so, as it does when a training begins."""
    name = CHECKPOINTING[0]
    if not getattr(trainer.args, name):
        return
    options = dict(getattr(trainer.args, f"{name}_kwargs") or {})
    options.pop("offload", None)  # to the memory beside a GPU
    layers = {"every_n_layers": options.pop("every_n_layers")} if "every_n_layers" in options else {}
    getattr(trainer.model, f"{name}_enable")(**{f"{name}_kwargs": options or None}, **layers)
    trainer.model.train()


def _blamed(part: Callable[[Fields], object], fields: Fields) -> dict[str, Exception]:
    """The fields that stop a part which succeeds without any, each with its error.

    That is the last stated field without which the part succeeds. Where there is none, several are wrong: then every
    field, with those that only go together, is added to the ones before it, and the last of those that stop the part
    is named.
    """
    for name in reversed(list(fields)):
        if _error(part, {other: value for other, value in fields.items() if other != name}) is None:
            error = _error(part, fields)
            assert error is not None
            return {name: error}
    blamed: dict[str, Exception] = {}
    kept: dict[str, Any] = {}
    for together in _groups(fields):
        error = _error(part, kept | together)
        if error is None:
            kept |= together
        else:
            blamed[list(together)[-1]] = error
    return blamed


def _groups(fields: Fields) -> list[dict[str, Any]]:
    """The fields, each alone or with those that it only goes together with."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in fields.items():
        first = next((group[0] for group in _TOGETHER if name in group), name)
        groups.setdefault(first, {})[name] = value
    return list(groups.values())


class _Pairs(DPOTrainer):
    """DPOTrainer on pairs that are prepared already."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: datasets.Dataset, *ignored: Any) -> datasets.Dataset:
        return dataset


def _conversations() -> datasets.Dataset:
    rows = [{"input_ids": _TOKENS, "labels": _TOKENS}, {"input_ids": _TOKENS[:8], "labels": _TOKENS[:8]}]
    return datasets.Dataset.from_list(rows)


def _pairs() -> datasets.Dataset:
    both = {"prompt_ids": _TOKENS[:4], **dict.fromkeys(_REFERENCES, 0.0)}
    rows = [{**both, "chosen_ids": _TOKENS[start:], "rejected_ids": _TOKENS[5:9]} for start in (4, 6)]
    return datasets.Dataset.from_list(rows)


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with a padding and an end, which is all that a trainer on token ids reads."""
    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


def _without_kernels(stated: Fields) -> dict[str, Any]:
    """Without the attention kernel, which may run on GPUs only."""
    options = stated.get("model_init_kwargs")
    if not isinstance(options, Mapping):
        return dict(stated)
    kept = {name: value for name, value in options.items() if name != "attn_implementation"}
    return {**stated, "model_init_kwargs": kept}


def _everywhere(peft: Fields) -> dict[str, Any]:
    """The adapter without its choice of layers and tokens, of which a tiny copy has only the first."""
    choices = ("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern")
    kept = {name: value for name, value in peft.items() if name not in choices}
    tokens = kept.get("trainable_token_indices")
    if tokens:
        of_layer = isinstance(tokens, Mapping)
        kept["trainable_token_indices"] = {name: _TOKENS for name in tokens} if of_layer else _TOKENS
    return kept


def _error(part: Callable[[Fields], object], fields: Fields) -> Exception | None:
    """What a part raises.

    Raises:
        MachineFault: it is the machine's fault, such as a full disk; a download that fails is one of the part's.
    """
    try:
        part(fields)
    except Exception as error:  # whatever a library raises for a value that it does not take
        if not is_network_fault(error):
            raise_machine_fault(error, tempfile.gettempdir())
        return error
    return None


def _words(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    plain = isinstance(error, ValueError | ImportError | NotCopied)
    return text if plain else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' warnings and progress bars, which speak of the trial and not of the training."""
    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    python_logging.disable(python_logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        python_logging.disable(python_logging.NOTSET)
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()
