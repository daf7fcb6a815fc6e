"""Communication between the ranks of a training, besides the trainer's own."""

import torch
from torch.distributed import ReduceOp


def has_ranks() -> bool:
    """Whether torch.distributed is in use."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def over_ranks(numbers: list[int], how: ReduceOp.RedOpType, device: torch.device) -> list[int]:
    """Reduce each number over all ranks. Every rank must call this at the same point."""
    if not has_ranks():
        return numbers
    together = torch.tensor(numbers, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(together, how)
    return [int(number) for number in together.tolist()]
