"""Memory of a training on a CPU: what is freed is kept for the next tensor."""

import ctypes

# Parameters of mallopt(3), by glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of returning it to the kernel, for the rest of this process.

    trl's loss allocates and frees some twenty tensors of [tokens, vocabulary] per micro-batch. By default glibc maps
    each one above 32 MiB afresh, and most of the step is spent in the kernel, clearing pages. The numbers are the same
    bit by bit. Other C libraries have no `mallopt`; nothing happens there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
