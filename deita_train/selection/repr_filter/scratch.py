"""Buffers that are reused from block to block."""

from collections.abc import Sequence

import torch


class Scratch:
    """Tensors by name, grown when a larger one is asked for.

    Every block needs several megabytes of temporary memory. Allocated each time, it comes from the operating
    system page by page, which takes longer than the arithmetic on it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, str], torch.Tensor] = {}

    def take(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """An uninitialised tensor; it is valid until the next call with this name."""
        key = (name, dtype, str(device))
        size = 1
        for length in shape:
            size *= length
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers[key] = torch.empty(size, dtype=dtype, device=device)
        return self._buffers[key][:size].view(*shape)
