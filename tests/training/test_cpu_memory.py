import platform
import resource

import pytest
import torch

from deita_train.training.cpu_memory import keep_freed_memory

SIZE, TIMES = 64 * 2**20, 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_large_tensor_gets_the_memory_of_the_one_before_it(processes):
    """In a new process, as a stage is one: late in a long one, the heap may have no room left to grow into."""
    child = processes.Process(target=check_reuse)
    child.start()
    child.join()
    assert child.exitcode == 0, "what went wrong stands in the child's output"


def check_reuse():
    """At first the heap grows by some tensors; by default the kernel would clear every page of every one."""
    keep_freed_memory()
    grown = pages_of(TIMES)
    assert grown + pages_of(TIMES) < TIMES / 2 * SIZE
    assert pages_of(TIMES) < 2 * SIZE


def pages_of(times):
    """Bytes of the pages that the kernel clears for tensors that follow one another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(SIZE, dtype=torch.uint8)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()
