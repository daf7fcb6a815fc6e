"""Work on many rows by several processes of this machine, in the order of the rows."""

import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from deita_train.errors import MachineFault
from deita_train.store.locks import die_with_parent

Made = TypeVar("Made")

# So many rows are some hundred kilobytes of token ids, and some tenths of a second.
ROWS_PER_PART = 512
# Starting processes takes longer than encoding this many rows.
_WORTH_PROCESSES = 2 * ROWS_PER_PART
# More would wait for the one process that writes.
_MOST_PROCESSES = 32
# Parts that wait for the reader, for each process.
_PARTS_AHEAD = 2


def in_parallel(num_rows: int, work: Callable[[range], Made]) -> Iterator[Made]:
    """What `work` makes of each part of the rows, in order.

    `work` is called in forked processes, which see everything that this one has loaded: it may read whatever it closes
    over, and what it changes is lost. The parts depend on `num_rows` alone, so the number of processes changes nothing.
    Few rows, or a machine with one core, need no processes.

    Args:
        num_rows: of the table.
        work: of the numbers of some consecutive rows; what it returns must be picklable.

    Raises:
        MachineFault: a process was killed, as by the kernel when memory runs out.
        Exception: whatever `work` raised, of the first part that did.
    """
    parts = [range(start, min(start + ROWS_PER_PART, num_rows)) for start in range(0, num_rows, ROWS_PER_PART)]
    processes = min(num_processes(), len(parts))
    if processes == 1 or num_rows < _WORTH_PROCESSES:
        yield from map(work, parts)
        return
    with _forked(processes, work) as pool:
        try:
            yield from _in_order(pool, parts, processes * _PARTS_AHEAD)
        except BrokenProcessPool:
            raise MachineFault(
                "a process that encoded rows was killed, as the kernel does when memory runs out. Run the same command "
                "again on a machine with more memory, or with fewer CPUs (taskset), each of which takes one process."
            ) from None


def num_processes() -> int:
    """How many processes work on rows: one for each core that this process may use."""
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)


def _in_order(pool: ProcessPoolExecutor, parts: list[range], most_ahead: int) -> Iterator[Any]:
    """The results of all parts, of which only a few are worked on ahead of the reader."""
    left = iter(parts)
    ahead: deque[Future[Any]] = deque(pool.submit(_work_on, part) for part in islice(left, most_ahead))
    try:
        while ahead:
            made = ahead.popleft().result()
            ahead.extend(pool.submit(_work_on, part) for part in islice(left, 1))
            yield made
    finally:
        for future in ahead:
            future.cancel()


def _forked(processes: int, work: Callable[[range], Any]) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("fork")  # the others would import torch again, and need `work` pickled
    return ProcessPoolExecutor(processes, context, initializer=_start, initargs=(work,))


def _start(work: Callable[[range], Any]) -> None:
    """In a new process: ends with its parent, leaves signals to it, and computes alone."""
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _WORK.append(work)


def _work_on(part: range) -> Any:
    return _WORK[-1](part)


# In a forked process, what it was started for.
_WORK: list[Callable[[range], Any]] = []
# Python warns of forks beside threads. The threads of a stage's process only wait, for the run and for what it logs.
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
