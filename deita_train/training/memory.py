"""How many sequences fit into memory besides weights, gradients and optimizer moments."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from deita_train.models.model_shape import load_config
from deita_train.training.lora import lora_config
from deita_train.training.sizes import trained_dtype

# The rest is for the output head's chunks, attention's workspace, communication buffers and fragmentation.
_USED_SHARE = 0.8


@dataclass(frozen=True)
class Precision:
    """Bytes per stored weight, and whether layers compute in two bytes from float32 weights (autocast)."""

    weight: int
    autocast: bool

    @classmethod
    def of(cls, model_init_kwargs: Mapping[str, Any] | None, *, is_half: bool) -> "Precision":
        """Follow trl's loading: float32 unless `model_init_kwargs` overrides it. A quantized model takes less."""
        dtype = trained_dtype({"model_init_kwargs": model_init_kwargs})
        weight = 4 if dtype in ("float32", "auto") else 2
        return cls(weight, autocast=is_half and weight == 4)


@dataclass(frozen=True)
class ModelShape:
    """A model's configuration, its numbers of all and of trained parameters, including an adapter's.

    `recomputes` says whether it can compute its activations anew instead of keeping them.
    """

    config: Any
    weights: int
    trained: int
    recomputes: bool = True

    @classmethod
    def of(cls, model_path: Path, peft: Mapping[str, Any] | None) -> "ModelShape":
        """Read the shape from the model's folder, without allocating weights."""
        config = load_config(model_path)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
            recomputes: bool = model.supports_gradient_checkpointing
            if peft is not None:
                model = get_peft_model(model, lora_config(peft))
        sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
        trained = sum(size for size, is_trained in sizes if is_trained)
        return cls(config, sum(size for size, _ in sizes), trained, recomputes)


def sequences_that_fit(
    shape: ModelShape,
    precision: Precision,
    *,
    checkpointing: bool,
    sharding: tuple[str, int],
    longest: int,
    free_bytes: int,
) -> int:
    """Count the sequences that fit on a device before the model is loaded.

    With activation checkpointing, a token keeps one vector per layer plus everything of the one layer that is being
    recomputed, counted twice for its gradients.

    Args:
        shape: The model's shape.
        precision: How weights are stored and layers computed.
        checkpointing: Whether activations are recomputed.
        sharding: The distributed type and world size, as :func:`state_bytes` takes them.
        longest: Tokens of the longest sequence.
        free_bytes: Free memory of the device.

    Returns:
        The number of sequences, at least 1.
    """
    left = _USED_SHARE * free_bytes - state_bytes(shape, precision, *sharding)
    layer, layers = layer_bytes(shape.config, precision), shape.config.num_hidden_layers
    boundary = precision.weight * shape.config.hidden_size  # a token's vector between two layers
    token = layers * boundary + 2 * layer if checkpointing else (layers + 1) * layer
    return max(1, int(left) // (token * longest))


def state_bytes(shape: ModelShape, precision: Precision, distributed_type: str, world_size: int) -> int:
    """Count the bytes one rank stores for the model and for training it with Adam.

    A frozen weight is stored once, a trained one four times (itself, its gradient, two moments), and under autocast
    once more in two bytes. FSDP and ZeRO-3 shard all of it over the ranks, ZeRO-2 all but the weights, ZeRO-1 the
    moments.
    """
    kept = precision.weight * shape.weights
    learnt = 3 * precision.weight * shape.trained
    cast = 2 * shape.weights if precision.autocast else 0
    if distributed_type in ("FSDP", "ZERO3"):
        return (kept + learnt) // world_size + cast
    if distributed_type == "ZERO2":
        return kept + learnt // world_size + cast
    if distributed_type == "ZERO1":
        return kept + learnt // 3 + 2 * learnt // 3 // world_size + cast
    return kept + learnt + cast


def layer_bytes(config: Any, precision: Precision) -> int:
    """Count the bytes a LLaMA-like layer keeps per token for its gradients.

    With a model of width D and an MLP of width I: 40 D + 16 I in float32, 24 D + 8 I in bfloat16, and 34 D + 8 I under
    autocast, where the residual stream stays float32. Counted in transformers' layers without grouped-query attention;
    a test repeats the count. torch's `scaled_dot_product_attention` keeps no attention scores.
    """
    width = config.hidden_size
    experts = getattr(config, "num_experts_per_tok", None) or 1
    mlp = experts * (getattr(config, "intermediate_size", None) or 4 * width)
    if precision.autocast:
        return 34 * width + 8 * mlp
    return 40 * width + 16 * mlp if precision.weight == 4 else 24 * width + 8 * mlp


def free_bytes(device: torch.device) -> int:
    """Return the bytes this rank may use: its GPU's free memory, or its share of the machine's available memory."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return _available_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _available_memory() -> int:
    """Return the machine's available bytes, including reclaimable caches on Linux; elsewhere only free pages."""
    facts = Path("/proc/meminfo")
    if facts.exists():
        line = next(line for line in facts.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
