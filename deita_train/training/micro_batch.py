"""How a rank's share of the global batch is cut: as stated, as the checkpoint had it, or as the memory allows."""

from pathlib import Path
from typing import Any

from torch.distributed import ReduceOp
from trl import DPOConfig, SFTConfig

from deita_train.store.atomic_io import read_json
from deita_train.training.arguments import CHECKPOINTING, TrainingSettings, largest_divisor
from deita_train.training.checkpoints import writers_of, zero_stage
from deita_train.training.memory import ModelShape, Precision, free_bytes, sequences_that_fit
from deita_train.training.ranks import over_ranks

# A CPU's attention writes the whole matrix of a packed row, so that long ones cost more than they save.
_PACKED_TOKENS_CPU = 2048


def choose_micro_batch(
    arguments: SFTConfig | DPOConfig,
    settings: TrainingSettings,
    shape: ModelShape,
    lengths: list[int],
    resume: Path | None,
) -> None:
    """Set the micro-batch and the accumulation of `arguments`, the same on every rank, unless the recipe states them.

    `lengths` are the rows' in tokens, of a preference pair that of the longer sequence. A training that goes on with as
    many ranks keeps the checkpoint's micro-batch, because another one changes the last bits.
    """
    if "per_device_train_batch_size" in settings.trainer:
        return
    share = settings.global_batch_size // settings.world_size
    micro = _kept(resume, settings.world_size)
    if micro is None:
        most = min(arguments.per_device_train_batch_size, _fits(arguments, settings, shape, lengths))
        # All divide the same share, and the smallest fits everywhere. Asking for the device starts the process group.
        device = arguments.device
        (micro,) = over_ranks([largest_divisor(share, most)], ReduceOp.MIN, device)
    assert share % micro == 0, f"{micro} sequences do not divide {share}"
    arguments.per_device_train_batch_size = micro
    arguments.gradient_accumulation_steps = share // micro


def _kept(resume: Path | None, world_size: int) -> int | None:
    if resume is None or writers_of(resume).world_size != world_size:
        return None
    micro: int = read_json(resume / "trainer_state.json")["train_batch_size"]
    return micro


def _fits(arguments: Any, settings: TrainingSettings, shape: ModelShape, lengths: list[int]) -> int:
    """Rows, or pairs, that the device holds at once; of a packed row on a CPU, those that are worth it."""
    if settings.packing and settings.use_cpu:
        return max(1, _PACKED_TOKENS_CPU * len(lengths) // sum(lengths))
    sequences = sequences_that_fit(
        shape,
        Precision.of(arguments.model_init_kwargs, bf16=arguments.bf16),
        checkpointing=any(getattr(arguments, name) for name in CHECKPOINTING),
        sharding=(_sharding(settings.distributed_type), settings.world_size),
        longest=max(lengths),
        free_bytes=free_bytes(arguments.device),
    )
    return max(1, sequences // (2 if settings.kind == "dpo" else 1))


def _sharding(distributed_type: str) -> str:
    """What the ranks divide, by the names of `state_bytes`."""
    return f"ZERO{zero_stage()}" if distributed_type == "DEEPSPEED" else distributed_type
