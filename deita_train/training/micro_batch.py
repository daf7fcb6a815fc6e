"""The micro-batch size: as the recipe states it, as the checkpoint had it, or as large as the memory allows."""

from pathlib import Path
from typing import Any

from torch.distributed import ReduceOp
from trl import DPOConfig, SFTConfig

from deita_train.store.atomic_io import read_json
from deita_train.training.arguments import CHECKPOINTING, TrainingSettings, largest_divisor
from deita_train.training.checkpoints import writers_of, zero_stage
from deita_train.training.fitting import Precision, sequences_that_fit
from deita_train.training.memory import ModelShape, free_bytes
from deita_train.training.ranks import over_ranks

# On a CPU, attention computes the full matrix of a packed row, so long rows cost more than they save.
_PACKED_TOKENS_CPU = 2048
# On a CPU trl's loss holds half a dozen float32 tensors of [tokens, vocabulary]; larger ones are not faster.
_LOGIT_BYTES_CPU = 256 * 2**20


def choose_micro_batch(
    arguments: SFTConfig | DPOConfig,
    settings: TrainingSettings,
    shape: ModelShape,
    lengths: list[int],
    resume: Path | None,
) -> None:
    """Set the micro-batch and accumulation of `arguments`, the same on every rank, unless the recipe states them.

    A training resumed with as many ranks keeps the checkpoint's micro-batch, because another one changes the last bits.

    Args:
        arguments: trl's configuration, which is changed.
        settings: The recipe's training settings.
        shape: The model's shape.
        lengths: Tokens of each row; of a preference pair, those of its longer sequence.
        resume: The checkpoint to resume from, if any.
    """
    if "per_device_train_batch_size" in settings.trainer:
        return
    share = settings.global_batch_size // settings.world_size
    micro = _kept(resume, settings.world_size)
    if micro is None:
        most = min(arguments.per_device_train_batch_size, _fits(arguments, settings, shape, lengths))
        # All divide the same share, so the smallest fits everywhere. Reading `device` starts the process group.
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
    """Count the rows, or pairs, that the device can hold at once; on a CPU, no more than is worthwhile."""
    if settings.packing and settings.use_cpu:
        return max(1, _PACKED_TOKENS_CPU * len(lengths) // sum(lengths))
    longest = max(lengths)
    sequences = sequences_that_fit(
        shape,
        Precision.of(arguments.model_init_kwargs, is_half=arguments.bf16 or arguments.fp16),
        checkpointing=any(getattr(arguments, name) for name in CHECKPOINTING),
        sharding=(_sharding(settings.distributed_type), settings.world_size),
        longest=longest,
        free_bytes=free_bytes(arguments.device),
    )
    if settings.use_cpu:
        sequences = min(sequences, _LOGIT_BYTES_CPU // (4 * shape.config.vocab_size * longest))
    return max(1, sequences // (2 if settings.kind == "dpo" else 1))


def _sharding(distributed_type: str) -> str:
    """Name what the ranks shard, as `state_bytes` expects it."""
    return f"ZERO{zero_stage()}" if distributed_type == "DEEPSPEED" else distributed_type
