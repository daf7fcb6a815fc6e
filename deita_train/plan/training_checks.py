"""What a training's section may not state, because of its launch or of itself."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, TypeAlias

from deita_train.errors import UserError
from deita_train.plan.training_launch import launch_contradictions, unsaved_model
from deita_train.recipe.model_sections import Training
from deita_train.training.mixed_precision import MixedPrecision, stated_precision

Error: TypeAlias = Callable[[str, str], UserError]
"""Of a field's dotted path and a sentence about it."""


def check_training(
    training: Training,
    trainer: Mapping[str, Any],
    precision: MixedPrecision,
    launch: dict[str, Any],
    where: str,
    error: Error,
) -> None:
    """Refuse a launch that would save no model or change what is learnt, and a batch that the ranks do not divide.

    Args:
        training: the section.
        trainer: its trainer fields with their defaults.
        precision: in which it computes.
        launch: its launch.
        where: the dotted path of the section.
        error: makes the error of a field.

    Raises:
        UserError: with the field's place in the recipe.
    """
    file = launch["config_file"]
    try:
        problem = unsaved_model(file)
        is_stated = stated_precision(training.trainer) is not None
        contradictions = launch_contradictions(file, trainer, precision, is_stated=is_stated)
    except UserError as unclear:
        raise error(f"{where}.launch", f"{file}: {unclear}.") from unclear
    if problem:
        raise error(f"{where}.launch", f"{file} would leave no model: {problem}.")
    if contradictions:
        raise error(f"{where}.launch", f"{file}: {'. And '.join(contradictions)}.")
    if precision == "fp16" and launch["use_cpu"]:
        raise error(f"{where}.trainer.fp16", "needs a GPU; leave it out, and a CPU computes in float32.")
    _check_trainer(training.trainer, where, error)
    _check_batch(training, launch, where, error)


def _check_trainer(trainer: Mapping[str, Any], where: str, error: Error) -> None:
    """Refuse fields that contradict each other, and an order that would depend on the ranks."""
    if trainer.get("fp16") and trainer.get("bf16"):
        raise error(f"{where}.trainer.fp16", "is true beside bf16: true; leave one of the two out.")
    old, new = (trainer.get(f"{kind}_checkpointing") for kind in ("gradient", "activation"))
    if None not in (old, new) and old != new:
        raise error(
            f"{where}.trainer.gradient_checkpointing",
            "is another name of activation_checkpointing, which has another value; leave one of the two out.",
        )
    if trainer.get("train_sampling_strategy") == "batch_rebalance":
        raise error(
            f"{where}.trainer.train_sampling_strategy",
            "batch_rebalance moves rows among micro-batches and ranks, which are divided here so that no row is "
            "repeated. Leave it out; rows of a global batch then have similar lengths.",
        )


def _check_batch(training: Training, launch: dict[str, Any], where: str, error: Error) -> None:
    """Refuse a global batch that the ranks and the micro-batch do not divide, and name the nearest that fits."""
    ranks = int(launch["num_processes"])
    micro = training.trainer.get("per_device_train_batch_size")
    unit = ranks * (micro if isinstance(micro, int) and micro > 0 else 1)
    if training.global_batch_size % unit:
        lower = training.global_batch_size // unit * unit
        nearest = " or ".join(str(size) for size in (lower, lower + unit) if size)
        parts = f"{ranks} ranks" + (f" x {micro} rows per device" if micro else "")
        raise error(
            f"{where}.global_batch_size",
            f"{training.global_batch_size} is not a multiple of {unit} ({parts}); nearest that fit: {nearest}.",
        )


def check_quantization(launch: dict[str, Any], where: str, error: Error, *, elsewhere: bool) -> None:
    """Refuse a quantized base where bitsandbytes has no kernels or is not installed, or weights are sharded.

    Args:
        launch: of the training.
        where: the dotted path of the section.
        error: makes the error of a field.
        elsewhere: whether the plan is for another machine, of which it is unknown what is installed.

    Raises:
        UserError: with the field's place in the recipe.
    """
    if launch["use_cpu"]:
        raise error(f"{where}.quantization", "needs a GPU; on a CPU leave it out.")
    if launch["distributed_type"] not in ("NO", "MULTI_GPU"):
        raise error(
            f"{where}.quantization",
            f"{launch['distributed_type']} divides weights that are not quantized; launch: single_gpu or ddp.",
        )
    if not elsewhere and find_spec("bitsandbytes") is None:
        raise error(f"{where}.quantization", "needs bitsandbytes: pip install 'deita-train[qlora]'.")
