import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deita_train.selection.repr_filter.repr_filter import Trace

FILE = Path(__file__).parents[2] / "benchmarks" / "selection.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("selection_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILE.parent)
        spec.loader.exec_module(module)
    return module


def test_a_small_run(benchmark, capsys, tmp_path):
    benchmark.main(["--small", "--float16", "--folder", str(tmp_path)])
    heading, _, title, _, head, _, *body, _ = capsys.readouterr().out.splitlines()
    assert heading.startswith("torch ") and "mapped files in float16" in heading
    assert title == "**Repr Filter**"
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    assert columns[:5] == ["case", "pool", "kept", "seen", "rejected"]
    rows = [
        dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True)) for row in body if row
    ]
    assert [row["case"] for row in rows] == [case.name for case in benchmark.SMALL]
    for row, case in zip(rows, benchmark.SMALL, strict=True):
        kept, seen, rejected = (int(row[name].replace(",", "")) for name in ("kept", "seen", "rejected"))
        assert kept == case.budget and seen - kept == rejected
        assert rejected < 10 if case.easy else rejected > kept  # the clustered pools are no easy ones
        assert re.fullmatch(r"[\d.]+ s( \(scaled\))?", row["loop"])
        assert ("scaled" in row["loop"]) == (case.loop == "part")
        assert float(row["ours / floor"]) > 0 and float(row["memory"].removesuffix(" GiB")) < 0.5
    assert list(tmp_path.iterdir()) == []  # the mapped file is gone


def test_the_pool_is_the_same_each_time_and_has_its_shape(benchmark, tmp_path):
    case = benchmark.SMALL[1]
    pool = benchmark.generate(case, tmp_path, np.dtype(np.float32))
    assert pool.shape == (case.num_rows, case.dim) and pool.dtype == np.float32
    mapped = benchmark.generate(replace(case, on_disk=True), tmp_path, np.dtype(np.float32))
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, pool)


def test_what_the_rule_asks_for_is_counted(benchmark):
    # Walked in the order 2, 0, 1, 3, 4: kept, kept, rejected, kept, not reached.
    trace = Trace(np.array([1, -1, 0, 2, -1]), np.full(5, np.nan, np.float32), np.array([-1, 2, -1, -1, -1]))
    walk = benchmark._Walk.of(np.array([2, 0, 1, 3, 4]), trace)
    assert walk.seen.tolist() == [2, 0, 1, 3]
    assert walk.kept.tolist() == [2, 0, 3]
    assert walk.kept_before.tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("loop", ["whole", "part"])
def test_another_result_than_the_loops_is_noticed(benchmark, monkeypatch, tmp_path, loop):
    case = replace(benchmark.SMALL[1], loop=loop, num_rows=300, budget=30)
    select = benchmark.ours.repr_filter
    # A filter with another threshold keeps other rows.
    monkeypatch.setattr(benchmark, "NUM_TIMED", 1000)
    monkeypatch.setattr(benchmark.ours, "repr_filter", lambda *a, **k: select(*a, **{**k, "threshold": 1.0}))
    with pytest.raises(AssertionError, match=r"the loop (keeps other rows|decides otherwise on row)"):
        benchmark.measure(case, benchmark.generate(case, tmp_path, np.dtype(np.float32)))


def test_too_little_disk_is_said_before_anything_is_written(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    with pytest.raises(SystemExit, match=r"case 300K: 4.6 GiB wanted in .*, 1.0 are free.*--float16"):
        benchmark.generate(benchmark.CASES[3], tmp_path, np.dtype(np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_pool_of_any_size_can_be_asked_for(benchmark, capsys, tmp_path):
    benchmark.main(["--rows", "5000", "--folder", str(tmp_path)])
    *_, row, _ = capsys.readouterr().out.splitlines()
    case, pool, kept, seen = (cell.strip() for cell in row.strip("|").split("|")[:4])
    assert (case, pool, kept) == ("5,000", "5,000 x 1,024", "150") and 150 < int(seen) < 5000
    assert benchmark.pool_of(10_000_000).budget == 30_000


def test_the_ids_of_a_pool_are_its_rows(benchmark):
    assert list(benchmark.row_ids(4098)) == [f"row-{place}" for place in range(4098)]
