"""How many sequences a micro-batch may hold: what the memory leaves beside weights, gradients and moments."""

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

# The rest is for the output head's chunks, attention's workspace, buffers of the ranks' exchange and fragments.
_USED_SHARE = 0.8


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight as it is kept, and whether the layers compute in bfloat16 beside float32 weights (autocast)."""

    weight: int
    autocast: bool

    @classmethod
    def of(cls, model_init_kwargs: Mapping[str, Any] | None, *, bf16: bool) -> "Precision":
        """As trl loads the model: float32 unless `model_init_kwargs` says otherwise. A quantized one takes less."""
        dtype = trained_dtype({"model_init_kwargs": model_init_kwargs})
        weight = 4 if dtype in ("float32", "auto") else 2
        return cls(weight, autocast=bf16 and weight == 4)


@dataclass(frozen=True)
class ModelShape:
    """A model's configuration, and how many parameters it has and trains, its adapter's among them."""

    config: Any
    weights: int
    trained: int

    @classmethod
    def of(cls, model_path: Path, peft: Mapping[str, Any] | None) -> "ModelShape":
        """From the model's folder; nothing is allocated."""
        config = load_config(model_path)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
            if peft is not None:
                model = get_peft_model(model, lora_config(peft))
        sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
        return cls(config, sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained))


def sequences_that_fit(
    shape: ModelShape,
    precision: Precision,
    *,
    checkpointing: bool,
    sharding: tuple[str, int],
    longest: int,
    free_bytes: int,
) -> int:
    """How many sequences of `longest` tokens a device with `free_bytes` holds before the model is loaded; 1 at least.

    `sharding` is what :func:`state_bytes` takes. With activation checkpointing a
    token keeps one vector per layer, and everything of the one layer that is computed again, twice for its gradients.
    """
    left = _USED_SHARE * free_bytes - state_bytes(shape, precision, *sharding)
    layer, layers = layer_bytes(shape.config, precision), shape.config.num_hidden_layers
    boundary = precision.weight * shape.config.hidden_size  # the vector of a token between two layers
    token = layers * boundary + 2 * layer if checkpointing else (layers + 1) * layer
    return max(1, int(left) // (token * longest))


def state_bytes(shape: ModelShape, precision: Precision, distributed_type: str, world_size: int) -> int:
    """What one rank keeps of the model and its training with Adam, in bytes.

    A frozen weight is kept once, a trained one four times (itself, its gradient, two moments), and under autocast once
    more in two bytes. FSDP and ZeRO-3 divide all of it by the ranks, ZeRO-2 all but the weights.
    """
    kept = precision.weight * shape.weights
    learnt = 3 * precision.weight * shape.trained
    cast = 2 * shape.weights if precision.autocast else 0
    if distributed_type in ("FSDP", "ZERO3"):
        return (kept + learnt) // world_size + cast
    if distributed_type == "ZERO2":
        return kept + learnt // world_size + cast
    return kept + learnt + cast


def layer_bytes(config: Any, precision: Precision) -> int:
    """What a LLaMA-like layer keeps of a token for its gradients, in bytes; its MLP I and its model D numbers wide.

    In float32 40 D + 16 I, in bfloat16 24 D + 8 I, and in bfloat16 beside float32 weights 34 D + 8 I, whose residual
    stream stays float32: counted in transformers' own layers with heads of their own for keys and values (a test
    counts again). Attention scores are not kept by the kernels of torch's `scaled_dot_product_attention`.
    """
    width = config.hidden_size
    experts = getattr(config, "num_experts_per_tok", None) or 1
    mlp = experts * (getattr(config, "intermediate_size", None) or 4 * width)
    if precision.autocast:
        return 34 * width + 8 * mlp
    return 40 * width + 16 * mlp if precision.weight == 4 else 24 * width + 8 * mlp


def free_bytes(device: torch.device) -> int:
    """What this rank may take now: its GPU's free memory, or its share of what the machine has available."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return _available_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _available_memory() -> int:
    """Linux counts what its caches would give back; elsewhere only free pages are known."""
    facts = Path("/proc/meminfo")
    if facts.exists():
        line = next(line for line in facts.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
