"""The processes that walk a pool together: one, or the ranks of torch.distributed."""

from typing import Protocol

import numpy as np
import torch


class Group(Protocol):
    """Processes that carry out the same calls in the same order.

    Attributes:
        rank: this process's number, from 0.
        size: how many processes there are.
    """

    rank: int
    size: int

    def gather(self, values: np.ndarray) -> np.ndarray:
        """``[size, *shape]``: the values of every rank by rank, on each of them; the same shape and dtype on all."""


class OneProcess:
    """A group of this process alone."""

    rank = 0
    size = 1

    def gather(self, values: np.ndarray) -> np.ndarray:
        """``[1, *shape]``: what this process has."""
        return values[None]


class ProcessGroup:
    """The ranks of torch.distributed's default process group, which the caller has initialised.

    Args:
        device: where what is exchanged has to lie: "cpu" for gloo, the rank's GPU for NCCL.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()
        self._device = device

    def gather(self, values: np.ndarray) -> np.ndarray:
        """``[size, *shape]``: the values of every rank by rank, bit by bit."""
        own = torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
        every = [torch.empty_like(own) for _ in range(self.size)]
        torch.distributed.all_gather(every, own)
        return torch.stack(every).cpu().numpy()
