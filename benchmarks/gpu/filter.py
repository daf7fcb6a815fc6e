"""Part `filter`: the Repr Filter on 300,000 x 4,096 clustered embeddings, 10,000 kept."""

import cProfile
import pstats
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from selection import CASES, THRESHOLD

from deita_train.selection.repr_filter.exact_rows import ExactRows
from deita_train.selection.repr_filter.process_group import OneProcess
from deita_train.selection.repr_filter.repr_filter import Trace, cut_trace, repr_filter, walk_order
from gpu.record import Figures, Recorder


@dataclass(frozen=True)
class Pool:
    """How many rows of how many numbers, how many to keep, and how many of these the CPU keeps too."""

    num_rows: int
    dim: int
    budget: int
    checked: int


_CASE = next(case for case in CASES if case.name == "300K")
LARGE = Pool(_CASE.num_rows, _CASE.dim, _CASE.budget, checked=2_000)
SMALL = Pool(2_000, 64, 200, checked=50)
_ROWS_AT_ONCE = 32_768
_LISTED = 12


def run(record: Recorder) -> None:
    """The walk on the device, then its beginning on the CPU."""
    pool = SMALL if record.dry_run else LARGE
    shape = vars(pool)
    started = time.perf_counter()
    embeddings = make_pool(pool, record.device)
    seconds = time.perf_counter() - started
    ids = [f"row-{place}" for place in range(pool.num_rows)]
    scores = np.random.default_rng(1).integers(0, pool.num_rows // 3, size=pool.num_rows).astype(np.float64)
    walked: list[Trace] = []

    def walk() -> Figures:
        parts = seconds_before_the_walk(embeddings, ids, scores)
        times = []
        for _ in range(2):  # the first one also loads kernels
            start = time.perf_counter()
            trace = repr_filter(embeddings, ids, scores, budget=pool.budget, threshold=THRESHOLD, device=record.device)
            times.append(time.perf_counter() - start)
        walked.append(trace)
        facts = {"selection_seconds": min(times), "first_seconds": times[0], "generation_seconds": seconds}
        return Figures(details=facts | parts | {"kept": trace.num_kept, "seen": trace.num_seen})

    def compare() -> Figures:
        start = time.perf_counter()
        on_cpu = repr_filter(embeddings, ids, scores, budget=pool.checked, threshold=THRESHOLD)
        facts = {"selection_seconds": time.perf_counter() - start, "kept": on_cpu.num_kept}
        beginning = cut_trace(walked[0], walk_order(ids, scores), pool.checked)
        for name, values in vars(on_cpu).items():
            np.testing.assert_array_equal(getattr(beginning, name), values, err_msg=f"{name} differs from the CPU's")
        return Figures(details=facts)

    def profile() -> Figures:
        profiler = cProfile.Profile()
        profiler.runcall(
            repr_filter, embeddings, ids, scores, budget=pool.budget, threshold=THRESHOLD, device=record.device
        )
        return Figures(details={"own_seconds": longest(pstats.Stats(profiler))})

    if record.measure("Repr Filter", shape, walk):
        record.measure("Repr Filter, the same rows on the CPU", shape, compare)
        record.measure("Repr Filter, where the time goes", shape, profile, 0 if record.dry_run else 10)


def longest(stats: pstats.Stats) -> dict[str, float]:
    """The functions in which most time went by, their callees left out, and these seconds."""
    rows = sorted(stats.stats.items(), key=lambda row: -row[1][2])[:_LISTED]  # type: ignore[attr-defined]
    return {f"{Path(file).name}:{number} {name}": row[2] for (file, number, name), row in rows}


def seconds_before_the_walk(embeddings: np.ndarray, ids: list[str], scores: np.ndarray) -> dict[str, float]:
    """What the CPU does before the first product: the order of the walk, and the check of all rows."""
    started = time.perf_counter()
    order = walk_order(ids, scores)
    ordered = time.perf_counter()
    ExactRows.check(embeddings, ids, center=False, order=order, group=OneProcess())
    return {"order_seconds": ordered - started, "check_seconds": time.perf_counter() - ordered}


def make_pool(pool: Pool, device: torch.device) -> np.ndarray:
    """Embeddings `[N, D]` float32 like those of benchmarks/selection.py, drawn on the device: four rows in five lie in
    clusters, a third as many as rows are wanted."""
    draw = torch.Generator(device).manual_seed(0)
    num_clusters = pool.budget // 3
    centres = _directions(num_clusters, pool.dim, draw)
    spreads = 0.1 + 0.26 * torch.rand(num_clusters, 1, generator=draw, device=device)
    embeddings = torch.empty(pool.num_rows, pool.dim)
    for part in embeddings.split(_ROWS_AT_ONCE):
        rows = _directions(len(part), pool.dim, draw)
        clustered = torch.rand(len(part), 1, generator=draw, device=device) < 0.8
        cluster = torch.randint(num_clusters, (len(part),), generator=draw, device=device)
        part.copy_(torch.where(clustered, centres[cluster] + spreads[cluster] * rows, rows))
    return embeddings.numpy()


def _directions(num_rows: int, dim: int, draw: torch.Generator) -> torch.Tensor:
    """Random vectors of length 1 on average `[n, D]` float32."""
    return torch.randn(num_rows, dim, generator=draw, device=draw.device) / dim**0.5
