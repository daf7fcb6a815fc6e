import platform
import resource

import pytest
import torch

from deita_train.training.cpu_memory import keep_freed_memory

SIZE, TIMES = 64 * 2**20, 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_large_tensor_gets_the_memory_of_the_one_before_it():
    """At first the heap may grow by one tensor; by default the kernel would clear every page of every one."""
    keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(SIZE, dtype=torch.uint8)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults * resource.getpagesize() < 3 * SIZE
