"""Disk space of a training: its checkpoints and the published model. Imports nothing heavy."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.models.weight_shapes import Shapes, count_weights
from deita_train.training.mixed_precision import precision_of

# With two, one is left if the newest is damaged. While the next is being written there are three.
CHECKPOINTS_KEPT = 2
CHECKPOINTS_AT_ONCE = CHECKPOINTS_KEPT + 1
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_MOMENTS = 2  # Adam's, in the dtype of the weights
_DEEPSPEED_OPTIMIZER = 12  # float32 weights and two float32 moments, whatever the model's dtype
# Fields of LoraConfig that select weights in ways this module does not model.
_INTRICATE = (
    "rank_pattern", "layers_pattern", "exclude_modules", "target_parameters", "trainable_token_indices",
    "layer_replication",
)  # fmt: skip
_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class TrainingSize:
    """The number of trained parameters, and the bytes of one checkpoint and of the published weights."""

    trained: int
    checkpoint: int
    published: int

    @property
    def at_most(self) -> int:
        """Peak bytes on disk: all checkpoints, or the last two next to the published model."""
        return max(CHECKPOINTS_AT_ONCE * self.checkpoint, CHECKPOINTS_KEPT * self.checkpoint + self.published)


def training_size(
    shapes: Shapes,
    trainer: Mapping[str, Any],
    *,
    distributed_type: str,
    zero_stage: int | None,
    use_cpu: bool,
    peft: Mapping[str, Any] | None = None,
    merge_adapter: bool = False,
) -> TrainingSize | None:
    """Estimate the disk space of a training; None if the adapter's size cannot be determined.

    A checkpoint holds, in bytes for each trained parameter of a model in float32 (with bf16 under DeepSpeed):

        one process, DDP    4 weights + 8 moments
        FSDP                4 weights + 4 weights once more + 8 moments
        ZeRO-1, ZeRO-2      4 (2) weights + 4 (2) weights once more + 12 float32 weights and moments
        ZeRO-3              4 (2) weights + 12

    Every optimizer is counted as Adam. The tokenizer and the random states are left out.
    """
    whole = count_weights(shapes)
    trained = whole if peft is None else adapter_weights(shapes, peft)
    if trained is None:
        return None
    dtype = trained_dtype(trainer) if peft is None else "float32"  # peft keeps adapters in float32
    weight = _BYTES.get(dtype, 4)
    is_half = precision_of(trainer, use_cpu=use_cpu) != "no"
    if distributed_type == "DEEPSPEED":
        weight = 2 if is_half else weight
        copies = 1 if zero_stage == 3 else 2
        checkpoint = trained * (copies * weight + _DEEPSPEED_OPTIMIZER)
    else:
        copies = 2 if distributed_type == "FSDP" else 1
        checkpoint = trained * (copies + _MOMENTS) * weight
    published = whole * _BYTES.get(trained_dtype(trainer), 4) if merge_adapter else trained * weight
    return TrainingSize(trained, checkpoint, published)


def trained_dtype(trainer: Mapping[str, Any]) -> str:
    """Return the dtype in which trl loads the model: float32 unless `model_init_kwargs` overrides it."""
    return str(model_options(trainer).get("dtype", "float32"))


def model_options(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return `model_init_kwargs`, which trl accepts as a mapping or as JSON."""
    options = trainer.get("model_init_kwargs") or {}
    return dict(json.loads(options) if isinstance(options, str) else options)


def adapter_weights(shapes: Shapes, peft: Mapping[str, Any]) -> int | None:
    """Count an adapter's parameters: r x (in + out) per layer, DoRA's magnitudes, and modules that are saved whole.

    Returns:
        The count, or None if the fields select layers in a way not modelled here, or select none.
    """
    if any(peft.get(name) for name in _INTRICATE) or peft.get("bias", "none") != "none":
        return None
    layers = [shape for name, shape in shapes.items() if len(shape) == 2 and _is_adapted(_module(name), peft)]
    if not layers:
        return None
    rank, dora = peft.get("r", 8), bool(peft.get("use_dora"))
    saved = peft.get("modules_to_save") or []
    whole = sum(math.prod(shape) for name, shape in shapes.items() if _ends(_module(name), saved))
    return sum(rank * (rows + columns) + dora * rows for rows, columns in layers) + whole


def frozen_layers(shapes: Shapes, peft: Mapping[str, Any]) -> int:
    """The lowest layers that no adapter is in: the backward pass ends above them."""
    adapted = {_layer(name) for name, shape in shapes.items() if len(shape) == 2 and _is_adapted(_module(name), peft)}
    numbers = [number for number in adapted if number is not None]
    return min(numbers) if numbers and None not in adapted and not peft.get("modules_to_save") else 0


def weights_below(shapes: Shapes, layers: int) -> int:
    """Weights of the lowest `layers` layers."""
    numbered = ((_layer(name), shape) for name, shape in shapes.items())
    return sum(math.prod(shape) for number, shape in numbered if number is not None and number < layers)


def _layer(name: str) -> int | None:
    """The number of the layer that a weight is in; None for one outside of the layers."""
    found = _NUMBER.search(name)
    return None if found is None else int(found[1])


def _is_adapted(module: str, peft: Mapping[str, Any]) -> bool:
    layers = peft.get("layers_to_transform")
    if layers not in (None, []) and _layer(f"{module}.") not in ([layers] if isinstance(layers, int) else layers):
        return False
    targets = peft.get("target_modules")
    if targets == "all-linear":
        return not _ends(module, ["embed_tokens", "lm_head", "wte", "embed_in", "embed_out"])
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return _ends(module, targets or ["q_proj", "v_proj"])  # peft's default for LLaMA, Mistral and Qwen2


def _ends(module: str, names: list[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _module(name: str) -> str:
    return name.rpartition(".")[0]
