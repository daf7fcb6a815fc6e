"""Part `sft`: tokens a second, MFU and memory of training a 7B on one GPU, way by way in order of worth; then DPO."""

import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from training import Measured, Way, measure
from transformers import PreTrainedModel
from transformers.models.mistral import modeling_mistral

from deita_train.data.rendering import IGNORED, RenderedPair
from deita_train.inference.forward import pad_batch, summed_loss
from deita_train.training.miniature import train_tokenizer
from deita_train.training.rows import LabelledRow, PairRow, write_pair_rows, write_training_rows
from gpu.models import MINIATURE, MISTRAL_7B, Shape, make_mistral, random_ids
from gpu.profiling import ProfileStep
from gpu.record import Figures, Recorder, UnavailableError, require

_WARM_UP = 2  # steps that load kernels and compile
_TIMED = 3
_STEPS = _WARM_UP + _TIMED + 1  # the last one is profiled, or not counted
_DYNAMO = "ACCELERATE_DYNAMO_"
_LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


@dataclass(frozen=True)
class Scale:
    """The model, the tokens of a row by the name of its length, and how many rows a step takes."""

    model: Shape
    lengths: dict[int, int]
    rows_per_step: int


LARGE = Scale(MISTRAL_7B, {4096: 4096, 2048: 2048, 8192: 8192}, 4)
SMALL = Scale(MINIATURE, {4096: 64, 2048: 32, 8192: 128}, 2)


@dataclass(frozen=True)
class Variant:
    """One way of training: rows of `length` tokens, of four conversations each where they are packed; how many seconds
    it is likely to take; what is on."""

    length: int = 4096
    seconds: float = 18.0
    packed: bool = True
    compiled: bool = False
    checkpointing: bool = False
    liger: bool = False
    float32: bool = False
    lora: bool = False
    profiled: bool = False

    @property
    def name(self) -> str:
        """As the tables show it."""
        words = [f"{'LoRA' if self.lora else 'SFT'}, {self.length:,} tokens"]
        words.append("float32 weights" if self.float32 else "bfloat16")
        words += [name for name in ("packed", "compiled", "checkpointing") if getattr(self, name)]
        return ", ".join(words + ["Liger kernels"] * self.liger)


# float32 weights with their gradients and moments take 108 GiB and their bfloat16 copies 14 more: with activations kept
# they do not fit beside 4,096 tokens.
VARIANTS = (
    Variant(packed=False, seconds=22, profiled=True),
    Variant(seconds=50, profiled=True),
    Variant(compiled=True, seconds=60, profiled=True),
    Variant(float32=True, checkpointing=True, seconds=30),
    Variant(lora=True),
    Variant(liger=True),
    Variant(checkpointing=True),
    Variant(2048, seconds=25),
    Variant(2048, compiled=True, seconds=45),
    Variant(2048, float32=True, checkpointing=True, seconds=30),
    Variant(float32=True, checkpointing=True, compiled=True, seconds=60),
    Variant(8192, seconds=25),
    Variant(2048, checkpointing=True),
    Variant(checkpointing=True, compiled=True, seconds=45),
)
_BEFORE_DPO = 5
_EVERY_SWITCH = 7  # in these first ones each switch is on once, which is all that a dry run needs


def run(record: Recorder) -> None:
    """The best ways, DPO, the kernels that trl would take from the Hub, and the other ways as long as time is left."""
    scale = SMALL if record.dry_run else LARGE
    for variant in VARIANTS[:_BEFORE_DPO]:
        _measure_sft(record, scale, variant)
    _measure_dpo(record, scale)
    record.measure("SFT with use_kernels", {}, _hub_kernels)
    for variant in VARIANTS[_BEFORE_DPO : _EVERY_SWITCH if record.dry_run else None]:
        _measure_sft(record, scale, variant)


def _hub_kernels() -> Figures:
    require("kernels")
    raise UnavailableError("it loads kernels from the Hub, and this script works without a network")


def _measure_sft(record: Recorder, scale: Scale, variant: Variant) -> None:
    length = scale.lengths[variant.length]
    shape = {**vars(scale.model), "tokens_per_row": length, "rows_per_step": scale.rows_per_step}

    def call() -> Figures:
        if variant.liger:
            require("liger_kernel")
        with _restored():
            return _train(record, way, rows, lambda dtype: make_mistral(scale.model, record.device, dtype), variant)

    parts = 4 if variant.packed else 1
    way = _way(variant, record, parts)

    def rows(folder: Path) -> int:
        draw = random.Random(1)
        drawn = (random_ids(draw, length // parts, scale.model) for _ in range(_STEPS * scale.rows_per_step * parts))
        write_training_rows((LabelledRow(str(number), ids, ids) for number, ids in enumerate(drawn)), folder)
        return scale.rows_per_step * parts

    if variant.liger and record.dry_run:
        return  # its kernels are written for GPUs alone
    record.measure(variant.name, shape, call, needs_seconds=0 if record.dry_run else variant.seconds)


def _way(variant: Variant, record: Recorder, parts: int) -> Way:
    trainer: dict[str, Any] = {
        "per_device_train_batch_size": parts,
        "gradient_checkpointing": variant.checkpointing,
        "learning_rate": 1e-5,
        "optim": "adamw_torch" if record.dry_run else "adamw_torch_fused",
    }
    if variant.compiled:
        trainer |= {"torch_compile": True, "torch_compile_backend": "eager" if record.dry_run else "inductor"}
    if variant.liger:
        trainer["use_liger_kernel"] = True
    dtype = torch.float32 if variant.float32 else record.dtype
    return Way(variant.name, trainer, variant.packed, dtype, peft=_LORA if variant.lora else None)


def _train(
    record: Recorder,
    way: Way,
    write_rows: Callable[[Path], int],
    make_model: Callable[[torch.dtype], PreTrainedModel],
    variant: Variant,
) -> Figures:
    """Train `_STEPS` steps of the rows that `write_rows` leaves in a folder; it gives the rows of a step."""
    profile = ProfileStep(_STEPS - 1, record.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = train_tokenizer([], 259, "", folder / "tokenizer")
        batch = write_rows(folder / "rows")
        measured = measure(
            way, make_model, tokenizer, datasets.load_from_disk(str(folder / "rows")), folder,
            use_cpu=record.dry_run, batch=batch, callbacks=[profile] if variant.profiled else [],
        )  # fmt: skip
    assert len(measured.steps) == _STEPS, f"{len(measured.steps)} steps"
    timed = slice(_WARM_UP, _WARM_UP + _TIMED)
    return Figures(measured.rate(timed), measured.flops_per_token, {**_details(measured), **profile.found})


def _details(measured: Measured) -> dict[str, Any]:
    return {
        "losses": measured.losses,
        "step_seconds": [step.seconds for step in measured.steps],
        "waiting_for_data": sum(step.seconds_for_data for step in measured.steps),
    }


@contextmanager
def _restored() -> Iterator[None]:
    """Take back what a training leaves in this process: how to compile, compiled code, Liger's classes."""
    before = dict(vars(modeling_mistral))
    os.environ[f"{_DYNAMO}USE_REGIONAL_COMPILATION"] = "true"  # one layer in place of 32
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith(_DYNAMO)]:
            del os.environ[name]
        vars(modeling_mistral).update(before)
        torch._dynamo.reset()


def _measure_dpo(record: Recorder, scale: Scale) -> None:
    """Pairs of two answers to one prompt, all three an eighth of a row long. The reference's log-probabilities are
    computed first and kept with the rows, as the stage does; training alone is timed."""
    part = scale.lengths[4096] // 8
    pairs_per_step = 2 * scale.rows_per_step
    shape = {**vars(scale.model), "prompt": part, "answers": [part, part], "pairs_per_step": pairs_per_step}
    variant = Variant(packed=False, profiled=True)
    # A pair is computed as two sequences of a prompt and an answer; two pairs are a row's tokens.
    way = _way(variant, record, parts=2)
    way = replace(way, name="DPO", kind="dpo")

    def call() -> Figures:
        model = make_mistral(scale.model, record.device, record.dtype)
        draw = random.Random(2)
        pairs = [
            RenderedPair(*(random_ids(draw, part, scale.model) for _ in range(3)), truncated=False)
            for _ in range(_STEPS * pairs_per_step)
        ]
        reference = _reference(model, pairs, record)

        def write(folder: Path) -> int:
            rows = (PairRow(str(n), pair, *logs) for n, (pair, logs) in enumerate(zip(pairs, reference, strict=True)))
            write_pair_rows(rows, folder)
            return pairs_per_step

        with _restored():
            figures = _train(record, way, write, lambda _: model.train(), variant)
        # Until the first step the policy is the reference: the loss of equal rewards.
        first = figures.details["losses"][0]
        return replace(figures, details={**figures.details, "first_loss_less_log_2": first - math.log(2)})

    record.measure(
        "DPO, 1,024 tokens a sequence, bfloat16, with its reference", shape, call, 0 if record.dry_run else 30
    )


def _reference(model: PreTrainedModel, pairs: Sequence[RenderedPair], record: Recorder) -> list[list[float]]:
    """The summed log-probabilities of the chosen and the rejected answer of each pair."""
    model.eval()
    found = []
    for pair in pairs:
        answers = (pair.chosen_ids, pair.rejected_ids)
        batch = pad_batch([pair.prompt_ids + answer for answer in answers], record.device)
        labels = batch.input_ids.clone()
        labels[:, : len(pair.prompt_ids)] = IGNORED
        sums, _ = summed_loss(model, batch, labels)
        found.append([-float(value) for value in sums])
    return found
