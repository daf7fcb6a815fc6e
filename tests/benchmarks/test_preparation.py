"""What each stage holds in memory does not grow with the text of the pool, measured at two sizes."""

import importlib.util
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "preparation.py"
WARM, SMALL, LARGE = 40, 120, 600
# A row is some 500 characters and 100 tokens. Its id, or its place, would be some 150 bytes as objects of Python.
MOST_BYTES_PER_ROW = 150
# For each answer, of all stages so far, its place in the store; tags and rankings as numbers. A prompt is 2,000 bytes.
MOST_BYTES_PER_ASKED_ROW = 1000
ASKING = ("direct_score", "instag", "evolve", "rank")
# Everything that is written or kept in parts: parts as small as the pools are here.
PARTS = {
    "data.row_table.ROWS_PER_CHUNK": 32,
    "data.row_table._MOST_IN_MEMORY": 1 << 14,
    "data.texts._AT_ONCE": 32,
    "data.texts._MOST_IN_MEMORY": 1 << 12,
    "data.arrow_columns._ROWS_AT_ONCE": 32,
    "data.parallel.ROWS_PER_PART": 32,
    "data.copies._KEPT_SHINGLES": 4,
    "inference.row_file.ROWS_PER_BATCH": 32,
    "inference.batch_inference._MOST_HELD": 1 << 14,
    "inference.shards._ROWS_PER_PART": 32,
    "selection.repr_filter.unit_rows.ROWS_PER_PASS": 32,
    "stages.inference.score._ROWS_PER_PART": 32,
    "stages.inference.score._MOST_IN_MEMORY": 1 << 12,
    "stages.inference.row_reuse._HASHES_AT_ONCE": 32,
    "stages.asking.chain_file._MOST_IN_MEMORY": 1 << 14,
    "stages.asking.chain_file._VERSIONS_PER_TABLE": 16,
    "stages.asking.rank._MOST_IN_MEMORY": 1 << 14,
    "stages.asking.rank._ROWS_PER_TABLE": 32,
    "data.row_blocks._ROWS_AT_ONCE": 16,
}
_POOLS = []  # a memory pool must outlive what was allocated from it


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("preparation_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILE.parent)
        spec.loader.exec_module(module)
        yield module


def peak_of(work):
    """The most that Python, numpy and Arrow held during the work, in bytes."""
    before = pa.default_memory_pool()
    _POOLS.append(pa.proxy_memory_pool(before))
    pa.set_memory_pool(_POOLS[-1])
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + _POOLS[-1].max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def test_no_stage_holds_the_pool(benchmark, tmp_path, monkeypatch):
    for name, value in PARTS.items():
        monkeypatch.setattr(f"deita_train.{name}", value)
    monkeypatch.setattr("datasets.config.DEFAULT_MAX_BATCH_SIZE", 32)  # of the rows that it writes at once
    monkeypatch.setattr("deita_train.data.parallel.num_processes", lambda: 1)
    peaks = {}
    for num_rows in (WARM, SMALL, LARGE):  # the first imports everything, unmeasured
        folder = tmp_path / str(num_rows)
        folder.mkdir()
        benchmark.make_pool(folder, num_rows, 80)
        for stage in benchmark.STAGES:
            context = benchmark.stage_context(stage, folder)
            if stage == "select":
                context = replace(context, identity={**context.identity, "budget": 20})
            work = partial(benchmark.work_on, context)
            peaks[stage, num_rows] = work() if num_rows == WARM else peak_of(work)
    grown = {stage: round((peaks[stage, LARGE] - peaks[stage, SMALL]) / (LARGE - SMALL)) for stage in benchmark.STAGES}
    limits = {stage: MOST_BYTES_PER_ASKED_ROW if stage in ASKING else MOST_BYTES_PER_ROW for stage in grown}
    assert {stage: bytes for stage, bytes in grown.items() if bytes > limits[stage]} == {}, grown
