"""What the ranks of a training tell each other beside the trainer's own exchange."""

import torch
from torch.distributed import ReduceOp


def has_ranks() -> bool:
    """Whether this process is one of several that exchange tensors."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def over_ranks(numbers: list[int], how: ReduceOp.RedOpType, device: torch.device) -> list[int]:
    """For each place the largest or smallest number of all ranks; every rank calls this at the same point."""
    if not has_ranks():
        return numbers
    together = torch.tensor(numbers, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(together, how)
    return [int(number) for number in together.tolist()]
