"""Part `rest`: two processes on one GPU, and the tests marked gpu."""

import multiprocessing
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from deita_train.selection.repr_filter.process_group import ProcessGroup
from deita_train.selection.repr_filter.repr_filter import Trace, repr_filter
from gpu.filter import Pool, make_pool
from gpu.models import MINIATURE, make_mistral
from gpu.record import FAILED, OK, SKIPPED, Figures, Recorder, UnavailableError

_ROOT = Path(__file__).parents[2]
_RANKS = 2
_SECONDS = 40  # for two processes from their start to their end
_POOL = Pool(2_000, 64, 200, checked=0)
_THRESHOLD = 0.9
_BATCH, _TOKENS = 4, 16


def run(record: Recorder) -> None:
    """Gloo, the tests, and last an attempt that is likely to be refused."""
    record.measure("two processes, gloo", vars(_POOL), lambda: _gloo(record))
    _run_tests(record)
    record.measure("two processes, NCCL", {}, lambda: _nccl(record))


def _gloo(record: Recorder) -> Figures:
    """The Repr Filter and a gradient averaged by DDP, both as of one process."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _run_ranks(record, "gloo", folder)
        trace, gradient = np.load(folder / "trace.npz"), torch.load(folder / "gradient.pt")
    for name, values in vars(_filter(record.device.type)).items():
        np.testing.assert_array_equal(trace[name], values, err_msg=f"{name} differs from one process's")
    model = make_mistral(MINIATURE, record.device, torch.float32)
    _loss(model, slice(None)).backward()
    whole = _gradient(model)
    error = float((gradient - whole).norm() / whole.norm())
    assert error < 1e-4, f"the averaged gradient is off by {error}"
    return Figures(details={"rows_kept": int((trace["selection_rank"] >= 0).sum()), "gradient_error": error})


def _nccl(record: Recorder) -> Figures:
    """Whether NCCL takes two ranks on one device; it refuses where each rank wants one of its own."""
    if record.dry_run or not torch.distributed.is_nccl_available():
        raise UnavailableError("no NCCL here")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            _run_ranks(record, "nccl", Path(temporary))
        except AssertionError as error:
            return Figures(details={"accepted": False, "answer": str(error)[-300:]})
    return Figures(details={"accepted": True})


def _run_ranks(record: Recorder, backend: str, folder: Path) -> None:
    """Start both, wait, and raise what the first that failed said."""
    context = multiprocessing.get_context("fork" if record.dry_run else "spawn")
    ranks = [context.Process(target=_rank, args=(rank, backend, record.device.type, folder)) for rank in range(_RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(_SECONDS)
        process.kill()
        process.join()
    said = [path.read_text() for path in sorted(folder.glob("error-*"))]
    codes = [process.exitcode for process in ranks]
    assert not any(codes), f"exit codes {codes}: {said[0] if said else f'no answer within {_SECONDS} s'}"


def _rank(rank: int, backend: str, device: str, folder: Path) -> None:
    try:
        torch.distributed.init_process_group(
            backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=_RANKS,
            timeout=timedelta(seconds=_SECONDS // 2),
        )  # fmt: skip
        if backend == "nccl":
            torch.distributed.all_reduce(torch.ones(1, device=device))
            torch.cuda.synchronize()
        else:
            _work(rank, device, folder)
        torch.distributed.destroy_process_group()
    except Exception as error:
        traceback.print_exc()
        (folder / f"error-{rank}").write_text(f"{type(error).__name__}: {error}")
        raise


def _work(rank: int, device: str, folder: Path) -> None:
    trace = _filter(device, ProcessGroup())
    model = make_mistral(MINIATURE, torch.device(device), torch.float32)
    share = _BATCH // _RANKS
    averaging = DistributedDataParallel(model)
    _loss(averaging, slice(rank * share, (rank + 1) * share)).backward()
    if rank == 0:
        np.savez(folder / "trace.npz", **vars(trace))
        torch.save(_gradient(model), folder / "gradient.pt")


def _filter(device: str, group: ProcessGroup | None = None) -> Trace:
    embeddings = make_pool(_POOL, torch.device("cpu"))
    ids = [f"row-{place}" for place in range(_POOL.num_rows)]
    scores = np.arange(_POOL.num_rows, dtype=np.float64)
    return repr_filter(embeddings, ids, scores, budget=_POOL.budget, threshold=_THRESHOLD, device=device, group=group)


def _loss(model: torch.nn.Module, rows: slice) -> torch.Tensor:
    """The mean loss of some rows of a fixed batch."""
    draw = torch.Generator().manual_seed(7)
    ids = torch.randint(3, MINIATURE.vocab_size, (_BATCH, _TOKENS), generator=draw)[rows]
    ids = ids.to(next(model.parameters()).device)
    loss: torch.Tensor = model(input_ids=ids, labels=ids).loss
    return loss


def _gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.grad.flatten().cpu() for weight in model.parameters() if weight.grad is not None])


class _Tests:
    """pytest's plugin: a row for each test."""

    def __init__(self, record: Recorder) -> None:
        self._record = record

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that was skipped ends in its set-up."""
        if report.when != "call" and report.passed:
            return
        reason = None
        if report.skipped:
            reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        elif report.failed:
            reason = report.longreprtext.strip().splitlines()[-1][:500]
        status = {"passed": OK, "skipped": SKIPPED, "failed": FAILED}[report.outcome]
        self._record.note(report.nodeid, status, reason, report.duration)


def _run_tests(record: Recorder) -> None:
    files = [path for path in sorted((_ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--rootdir={_ROOT}", "-c", str(_ROOT / "pyproject.toml")]
    pytest.main([*options, *map(str, files)], plugins=[_Tests(record)])
