"""The Repr Filter against the loop over candidates that it replaces, and against the products that it must take.

    python benchmarks/selection.py --small                       seconds, a look at the form
    python benchmarks/selection.py --cases "30K easy" "30K"      some cases; --help names them
    python benchmarks/selection.py                               all: 5 GB of free disk, 4 GB of memory
    python benchmarks/selection.py --rows 10000000 --float16 --minutes 60      a pool of that size: 20 GB of disk

Each case is a generated pool. "easy" means directions drawn at random, hardly one of which is rejected. Otherwise four
rows in five lie in clusters, a third as many as rows are wanted, and most of what the walk sees of a cluster is
rejected; in some clusters the rows' similarity to each other is close to the threshold. Scores tie. Columns:

- seen, rejected: rows that the walk tested until the budget was full.
- operations: 2 D for each pair of a row seen and a row kept before it, which is what the rule asks for.
- read: bytes of the pool that must be read, all rows once for their norms and the seen rows once more.
- floor: the operations at the speed of a float32 matrix product of the same width, measured in the same run.
- CPU ratio: ours and the floor again, both in seconds of CPU time instead of the clock's, for a machine that is shared.
- loop: one candidate after the other, gathering all kept rows in float64 anew for each, as the public code does;
  asserted to keep the same rows. "scaled" means that it was timed on 64 candidates spread evenly over the walk,
  asserted to be decided alike, and that the time of the others was interpolated.
- memory: the most that the process held beside the pool's embeddings, ids and scores included, and what it may hold:
  the kept rows, 1 GiB, and 16 bytes for each row of the pool.

Linux only: memory is what /proc calls anonymous, without the pages of the mapped file. Threads: OMP_NUM_THREADS.
"""

import argparse
import ctypes
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from progress import add_time_limit, say, time_limit

from deita_train.data.texts import TextColumn
from deita_train.selection.repr_filter import repr_filter as ours
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.table import Table, numbers, words

THRESHOLD = 0.9
GIB = 2**30
ROWS_PER_WRITE = 4096
NUM_TIMED = 64


@dataclass(frozen=True)
class Case:
    """A pool of ``num_rows`` x ``dim``, how many rows to keep, and how the loop is timed: "whole", "part" or "none"."""

    name: str
    num_rows: int
    dim: int
    budget: int
    loop: str
    easy: bool = False
    on_disk: bool = False
    repeats: int = 1


CASES = (
    Case("30K easy", 30_000, 1024, 3_000, loop="whole", easy=True, repeats=3),
    Case("30K", 30_000, 1024, 3_000, loop="whole", repeats=3),
    Case("100K", 100_000, 4096, 6_000, loop="part", on_disk=True),
    Case("300K", 300_000, 4096, 10_000, loop="none", on_disk=True),
    Case("1M", 1_000_000, 1024, 30_000, loop="none", on_disk=True),
)
SMALL = (
    Case("easy", 2_000, 64, 200, loop="whole", easy=True),
    Case("clustered", 2_000, 64, 200, loop="whole"),
    Case("on disk", 6_000, 48, 300, loop="part", on_disk=True),
)


@dataclass(frozen=True)
class Result:
    """What was measured: seconds, operations, bytes; ``cpu_ratio`` is ours by the floor, and ``loop`` None where it was
    not run."""

    case: Case
    seen: int
    kept: int
    operations: float
    read: int
    floor: float
    seconds: float
    cpu_ratio: float
    memory: int
    loop: float | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Measure the Repr Filter.")
    parser.add_argument("--small", action="store_true", help="small pools, in seconds")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="only these")
    parser.add_argument("--rows", type=int, help="instead, a mapped pool of as many rows of 1,024 numbers")
    parser.add_argument("--float16", action="store_true", help="mapped files in half precision: half the disk")
    parser.add_argument("--folder", type=Path, help="where the mapped files go for a while (default: the system's)")
    add_time_limit(parser)
    options = parser.parse_args(arguments)
    cases = SMALL if options.small else tuple(case for case in CASES if case.name in (options.cases or case.name))
    if options.rows is not None:
        cases = (pool_of(options.rows),)
    dtype = np.dtype(np.float16 if options.float16 else np.float32)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; mapped files in {dtype}; load average "
        f"{os.getloadavg()[0]:.1f} before the start\n"
    )
    results = []
    with time_limit(options.minutes):
        for case in cases:
            say(case.name)
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                results.append(measure(case, generate(case, Path(folder), dtype)))
    print(table(results).markdown())


def pool_of(num_rows: int) -> Case:
    """A mapped pool of any size, of which 30,000 rows are kept, or 3% where that is less."""
    return Case(f"{num_rows:,}", num_rows, 1024, min(30_000, num_rows * 3 // 100), loop="none", on_disk=True)


def generate(case: Case, folder: Path, dtype: np.dtype) -> np.ndarray:
    """The pool's embeddings ``[N, D]``, always the same: float32 in memory, or ``dtype`` in a mapped file.

    Raises:
        SystemExit: the file would not fit.
    """
    shape = (case.num_rows, case.dim)
    if not case.on_disk:
        embeddings = np.empty(shape, dtype=np.float32)
    else:
        needed, free = case.num_rows * case.dim * dtype.itemsize, shutil.disk_usage(folder).free
        if needed > 0.9 * free:
            raise SystemExit(
                f"case {case.name}: {needed / GIB:.1f} GiB wanted in {folder}, {free / GIB:.1f} are free; "
                "name another --folder, or use --float16"
            )
        embeddings = np.memmap(folder / "embeddings", dtype=dtype, mode="w+", shape=shape)
    rng = np.random.default_rng(0)
    centres, spreads = _clusters(case, rng)
    for start in range(0, case.num_rows, ROWS_PER_WRITE):
        rows = embeddings[start : start + ROWS_PER_WRITE]
        rows[:] = _rows(len(rows), centres, spreads, 0.0 if case.easy else 0.8, rng)
    return embeddings


def _clusters(case: Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit centres ``[C, D]``, and how far each cluster's rows lie from it: their cosines are 1 / (1 + spread²)."""
    centres = _directions(case.budget // 3, case.dim, rng)
    return centres, rng.uniform(0.1, 0.36, size=(len(centres), 1)).astype(np.float32)


def _rows(
    num_rows: int, centres: np.ndarray, spreads: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    rows = _directions(num_rows, centres.shape[1], rng)
    clustered = np.flatnonzero(rng.random(num_rows) < share)
    cluster = rng.integers(len(centres), size=len(clustered))
    rows[clustered] = centres[cluster] + spreads[cluster] * rows[clustered]
    return rows


def _directions(num_rows: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Random vectors of length 1 on average ``[n, D]`` float32."""
    return rng.standard_normal((num_rows, dim), dtype=np.float32) / np.float32(np.sqrt(dim))


def measure(case: Case, embeddings: np.ndarray) -> Result:
    """Time ours, the floor, and the loop where the case has one; assert that both keep the same rows."""
    rate, cpu_rate = product_rates(case)
    with peak_memory() as peak:
        ids = row_ids(case.num_rows)
        scores = np.random.default_rng(1).integers(0, case.num_rows // 3, size=case.num_rows).astype(np.float64)

        def select() -> Trace:
            return ours.repr_filter(embeddings, ids, scores, budget=case.budget, threshold=THRESHOLD)

        seconds, cpu_seconds, trace = _timed(select, case.repeats)
    # The machine may have been busier before than after.
    rate, cpu_rate = np.maximum((rate, cpu_rate), product_rates(case)).tolist()
    walk = _Walk.of(ours.walk_order(ids, scores), trace)
    assert len(walk.kept) == case.budget, f"case {case.name}: the walk kept only {len(walk.kept)} rows"
    loop = {"whole": whole_loop, "part": part_of_loop, "none": lambda *_: None}[case.loop](embeddings, walk)
    operations = 2.0 * case.dim * float(walk.kept_before.sum())
    read = (case.num_rows + len(walk.seen)) * case.dim * embeddings.itemsize
    cpu_ratio = cpu_seconds / (operations / cpu_rate)
    return Result(
        case, len(walk.seen), len(walk.kept), operations, read, operations / rate, seconds, cpu_ratio, peak.bytes, loop
    )


def row_ids(num_rows: int) -> TextColumn:
    """Ids in Arrow, in many chunks as the mapped table of a pool has them."""
    starts = range(0, num_rows, ROWS_PER_WRITE)
    chunks = ([f"row-{place}" for place in range(start, min(start + ROWS_PER_WRITE, num_rows))] for start in starts)
    return TextColumn(pa.chunked_array([pa.array(chunk) for chunk in chunks]))


def _timed(call: Callable[[], Trace], repeats: int) -> tuple[float, float, Trace]:
    """The shortest time of several calls in seconds, by the clock and of the CPU, and what the last one gave."""
    best = cpu_best = float("inf")
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        trace = call()
        best = min(best, time.perf_counter() - start)
        cpu_best = min(cpu_best, time.process_time() - cpu_start)
    return best, cpu_best, trace


def product_rates(case: Case) -> tuple[float, float]:
    """Operations a second of a float32 matrix product as wide as the embeddings, the best of five.

    By the clock, and by the CPU time of all threads together.
    """
    block, kept = torch.rand(1024, case.dim), torch.rand(min(4096, case.budget), case.dim)
    best = cpu_best = float("inf")
    for _ in range(5):
        start, cpu_start = time.perf_counter(), time.process_time()
        block @ kept.T
        best = min(best, time.perf_counter() - start)
        cpu_best = min(cpu_best, time.process_time() - cpu_start)
    operations = 2.0 * len(block) * len(kept) * case.dim
    return operations / best, operations / cpu_best


@dataclass(frozen=True)
class _Walk:
    """The rows seen in their order, ``is_kept`` for each, how many were kept before it, and the kept ones."""

    seen: np.ndarray
    is_kept: np.ndarray
    kept_before: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, order: np.ndarray, trace: Trace) -> "_Walk":
        is_kept = trace.selection_rank[order] >= 0
        seen = order[: int(np.flatnonzero(is_kept)[-1]) + 1]
        is_kept = is_kept[: len(seen)]
        return cls(seen, is_kept, np.cumsum(is_kept) - is_kept, seen[is_kept])


def keeps(embeddings: np.ndarray, kept: Sequence[int] | np.ndarray, candidate: int) -> bool:
    """The decision of the loop on one candidate: all kept rows gathered in float64, copied and normalised anew."""
    if not len(kept):
        return True
    rows = torch.tensor(embeddings[kept], dtype=torch.float64)
    row = torch.tensor(embeddings[candidate], dtype=torch.float64)
    similarity = (rows / rows.norm(dim=1, keepdim=True)) @ (row / row.norm())
    return float(similarity.max()) <= THRESHOLD


def whole_loop(embeddings: np.ndarray, walk: _Walk) -> float:
    """Seconds of the loop over all rows of the walk, whose result is asserted to be ours."""
    kept: list[int] = []
    start = time.perf_counter()
    for candidate in walk.seen:
        if keeps(embeddings, kept, candidate):
            kept.append(int(candidate))
    seconds = time.perf_counter() - start
    assert kept == walk.kept.tolist(), "the loop keeps other rows"
    return seconds


def part_of_loop(embeddings: np.ndarray, walk: _Walk) -> float:
    """Seconds of the loop, from candidates spread evenly over the walk; each decision is asserted to be ours."""
    places = np.unique(np.linspace(0, len(walk.seen) - 1, NUM_TIMED).astype(int))
    times = []
    for place in places:
        kept = walk.kept[: walk.kept_before[place]]
        start = time.perf_counter()
        decision = keeps(embeddings, kept, walk.seen[place])
        times.append(time.perf_counter() - start)
        assert decision == walk.is_kept[place], f"the loop decides otherwise on row {walk.seen[place]}"
    return float(np.interp(np.arange(len(walk.seen)), places, times).sum())


class _Peak:
    """The most anonymous memory above that at the start, in bytes."""

    def __init__(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier cases freed must not count as theirs
        self.start, self.bytes = _anonymous_bytes(), 0

    def sample(self) -> None:
        self.bytes = max(self.bytes, _anonymous_bytes() - self.start)


def _anonymous_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@contextmanager
def peak_memory() -> Iterator[_Peak]:
    """Sample the memory of this process every 5 ms until the block ends."""
    peak, ended = _Peak(), threading.Event()

    def sample() -> None:
        while not ended.wait(0.005):
            peak.sample()

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
        peak.sample()


def table(results: Sequence[Result]) -> Table:
    """One row per case."""
    titles = (
        "pool", "kept", "seen", "rejected", "operations", "read", "floor", "ours", "ours / floor", "CPU ratio",
        "loop", "loop / ours", "memory", "may hold",
    )  # fmt: skip
    rows = tuple(_cells(result) for result in results)
    return Table((*words("case"), *numbers(*titles)), rows, "Repr Filter")


def _cells(result: Result) -> tuple[str, ...]:
    case = result.case
    scaled = " (scaled)" if case.loop == "part" else ""
    return (
        case.name,
        f"{case.num_rows:,} x {case.dim:,}",
        f"{result.kept:,}",
        f"{result.seen:,}",
        f"{result.seen - result.kept:,}",
        f"{result.operations:.2e}",
        f"{result.read / GIB:.2f} GiB",
        f"{result.floor:.3f} s",
        f"{result.seconds:.3f} s",
        f"{result.seconds / result.floor:.1f}",
        f"{result.cpu_ratio:.1f}",
        "-" if result.loop is None else f"{result.loop:.1f} s{scaled}",
        "-" if result.loop is None else f"{result.loop / result.seconds:,.0f}",
        f"{result.memory / GIB:.2f} GiB",
        f"{(4 * case.budget * case.dim + GIB + 16 * case.num_rows) / GIB:.2f} GiB",
    )


if __name__ == "__main__":
    main()
