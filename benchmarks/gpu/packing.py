"""Part `packing`: packed rows give the losses and gradients of rows alone; an adapter on a base of four bits."""

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from deita_train.models.adapter_files import name_base
from deita_train.training.arguments import Quantization, TrainingSettings
from deita_train.training.lora import merge_adapter
from deita_train.training.miniature import train_tokenizer
from deita_train.training.rows import LabelledRow, write_training_rows
from deita_train.training.trainer_run import train
from gpu.models import MEDIUM, MINIATURE, Shape, make_mistral, random_ids
from gpu.record import Figures, Recorder, require

Rows = Sequence[list[int]]
# Relative to the float32 gradients of rows alone.
_FLOAT32_TOLERANCE = 1e-3
# bfloat16's own error, measured on rows alone, is no limit for packed rows to the last digit.
_SLACK = 1.5


@dataclass(frozen=True)
class Scale:
    """A model, the lengths of the rows of one packed row, and total lengths of packed rows of two conversations."""

    model: Shape
    lengths: tuple[int, ...]
    totals: tuple[int, ...]


LARGE = Scale(MEDIUM, (37, 128, 129, 300, 611, 843), (1500, 1700, 1900, 2100, 2300, 2500, 2700, 2900, 3100, 3300))
SMALL = Scale(MINIATURE, (5, 9, 16, 17), (20, 30))


def run(record: Recorder) -> None:
    """Kernels in both precisions, packed rows of many lengths, then adapters."""
    scale = SMALL if record.dry_run else LARGE
    flex = "sdpa" if record.dry_run else "flex_attention"  # a CPU packs by sdpa
    _agreement(record, scale, flex, record.dtype)
    _quantized(record, scale, "nf4")
    _lengths(record, scale, flex)
    _agreement(record, scale, "flash_attention_2", torch.bfloat16)
    if record.dry_run:
        _quantized(record, scale, None)
    else:
        _agreement(record, scale, flex, torch.float32)


def _agreement(record: Recorder, scale: Scale, kernel: str, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    shape = {**vars(scale.model), "lengths": list(scale.lengths)}

    def call() -> Figures:
        if kernel == "flash_attention_2":
            require("flash_attn")
        draw = random.Random(3)
        rows = [random_ids(draw, length, scale.model) for length in scale.lengths]
        model = make_mistral(scale.model, record.device, torch.float32)
        loss, gradient = losses_alone(model, rows)
        model.to(dtype)
        alone = loss_errors(losses_alone(model, rows), (loss, gradient))
        model.set_attn_implementation(kernel)
        packed = loss_errors(loss_packed(model, rows, record.device), (loss, gradient))
        details = {"loss_error": packed[0], "gradient_error": packed[1]}
        details |= {"loss_error_alone": alone[0], "gradient_error_alone": alone[1]}
        limits = [max(_FLOAT32_TOLERANCE, _SLACK * error) for error in alone]
        assert packed[0] <= limits[0] and packed[1] <= limits[1], f"packed rows differ: {details}"
        return Figures(details=details)

    record.measure(f"packed against alone, {kernel}, {name}", shape, call)


def losses_alone(model: PreTrainedModel, rows: Rows) -> tuple[float, torch.Tensor]:
    """The summed loss of all tokens but each row's first, and its gradient as one float32 vector, row by row."""
    model.set_attn_implementation("sdpa")
    model.zero_grad()
    total = 0.0
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits[0, :-1].float(), ids[0, 1:], reduction="sum"
        )
        loss.backward()
        total += float(loss.detach())
    return total, _gradient(model)


def loss_packed(model: PreTrainedModel, rows: Rows, device: torch.device) -> tuple[float, torch.Tensor]:
    """The same of one packed row, as trl collates it."""
    model.zero_grad()
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": row, "labels": row} for row in rows])
    batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    labels = batch.pop("labels")
    labels[batch["position_ids"] == 0] = -100  # nothing precedes a conversation's first token
    # With a cache transformers would not see where a conversation begins; trl's trainers have none either.
    loss = _summed(model(**batch, use_cache=False).logits, labels)
    loss.backward()
    return float(loss.detach()), _gradient(model)


def _summed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of a batch of one row."""
    return torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels[0, 1:], reduction="sum")


def _gradient(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([weight.grad.float().flatten() for weight in model.parameters() if weight.grad is not None])


def loss_errors(found: tuple[float, torch.Tensor], right: tuple[float, torch.Tensor]) -> tuple[float, float]:
    """Relative errors of a loss and of the length of a gradient."""
    return abs(found[0] - right[0]) / right[0], float((found[1] - right[1]).norm() / right[1].norm())


def _lengths(record: Recorder, scale: Scale, kernel: str) -> None:
    """Seconds of a forward and backward pass over packed rows whose total length is never the same."""

    def call() -> Figures:
        draw = random.Random(4)
        model = make_mistral(scale.model, record.device, record.dtype)
        model.set_attn_implementation(kernel)
        seconds = []
        for total in scale.totals:
            rows = [random_ids(draw, part, scale.model) for part in (total // 3, total - total // 3)]
            started = time.perf_counter()
            loss_packed(model, rows, record.device)
            seconds.append(time.perf_counter() - started)
        return Figures(details={"seconds": seconds})

    record.measure(
        f"packed rows of changing length, {kernel}", {**vars(scale.model), "lengths": list(scale.totals)}, call
    )


def _quantized(record: Recorder, scale: Scale, quantization: Quantization | None) -> None:
    """Train an adapter by the framework's own way, merge it, and load the result with plain transformers."""

    def call() -> Figures:
        if quantization is not None:
            require("bitsandbytes")
        with tempfile.TemporaryDirectory() as temporary:
            return Figures(details=_train_and_merge(record, scale.model, quantization, Path(temporary)))

    name = "QLoRA" if quantization else "LoRA"
    record.measure(f"{name}, {quantization or 'whole base'}: trained, merged, loaded", vars(scale.model), call)


def _train_and_merge(record: Recorder, shape: Shape, quantization: Quantization | None, folder: Path) -> dict[str, Any]:
    draw = random.Random(5)
    base = folder / "base"
    tokenizer = train_tokenizer([], 259, "", base)
    make_mistral(shape, record.device, record.dtype).save_pretrained(base)
    drawn = [random_ids(draw, 20 + 3 * number, shape) for number in range(8)]
    write_training_rows((LabelledRow(str(number), ids, ids) for number, ids in enumerate(drawn)), folder / "rows")
    settings = TrainingSettings(
        {"learning_rate": 1e-2, "num_train_epochs": 3, "logging_steps": 1, "per_device_train_batch_size": 4},
        global_batch_size=8, seed=1, world_size=1, distributed_type="NO", use_cpu=record.dry_run,
        peft={"r": 8, "target_modules": "all-linear"}, quantization=quantization,
    )  # fmt: skip
    outcome = train(
        str(base), tokenizer, datasets.load_from_disk(str(folder / "rows")), settings, folder / "checkpoints",
        folder / "adapter", lambda *progress: None, lambda *log: None,
    )  # fmt: skip
    losses = [entry["loss"] for entry in outcome.history]
    assert losses[-1] < losses[0], f"the adapter learns nothing: {losses}"
    name_base(folder / "adapter", str(base), None)
    difference = merge_adapter(folder / "adapter", folder / "merged", str(record.dtype).removeprefix("torch."))
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=record.dtype).to(record.device)
    with torch.inference_mode():
        logits = merged(input_ids=torch.tensor([drawn[0]], device=record.device)).logits
    assert bool(torch.isfinite(logits).all()), "the merged model's logits are not finite"
    return {"losses": losses, "merging_changed_logits_by": difference}
