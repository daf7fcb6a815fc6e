"""A model's shape, and the memory that a training may use."""

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
