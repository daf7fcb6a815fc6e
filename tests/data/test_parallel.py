"""Work by several processes: the same results in the same order, errors as they were raised, nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deita_train.data import parallel
from deita_train.data.parallel import in_parallel
from deita_train.data.row_refusal import RowRefused
from deita_train.errors import MachineFault, UserError

NUM_ROWS = 2300


@pytest.fixture(params=[1, 2, 5])
def processes(request, monkeypatch):
    monkeypatch.setattr(parallel, "num_processes", lambda: request.param)
    return request.param


def test_parts_come_in_order_whatever_the_processes(processes):
    parts = list(in_parallel(NUM_ROWS, lambda part: [(row, row * row) for row in part]))
    assert [len(part) for part in parts] == [512, 512, 512, 512, 252]
    assert [pair for part in parts for pair in part] == [(row, row * row) for row in range(NUM_ROWS)]


def test_several_processes_work_and_few_rows_need_none(monkeypatch):
    monkeypatch.setattr(parallel, "num_processes", lambda: 2)

    def work(part):
        time.sleep(0.05)
        return os.getpid()

    assert len(set(in_parallel(NUM_ROWS, work)) - {os.getpid()}) == 2
    assert set(in_parallel(1000, work)) == {os.getpid()}


def test_nothing_is_nothing(processes):
    assert list(in_parallel(0, list)) == []


def test_a_users_mistake_is_told_as_it_was_raised(processes):
    def work(part):
        if 700 in part:
            raise UserError("row 700: the tokenizer has no such token")
        return len(part)

    found = in_parallel(NUM_ROWS, work)
    assert next(found) == 512
    with pytest.raises(UserError, match=r"^row 700: the tokenizer has no such token$"):
        list(found)


def test_a_refusal_can_be_handed_on():
    (refusal,) = {*in_parallel(1, lambda part: RowRefused("refused_by_template", "no system message"))}
    assert (refusal.reason, refusal.detail) == ("refused_by_template", "no system message")
    assert str(refusal) == "refused_by_template: no system message"


def test_refusals_come_from_other_processes(monkeypatch):
    monkeypatch.setattr(parallel, "num_processes", lambda: 2)
    found = list(in_parallel(NUM_ROWS, lambda part: RowRefused("text_not_written", str(part.start))))
    assert [refusal.detail for refusal in found] == ["0", "512", "1024", "1536", "2048"]


def test_a_process_killed_by_the_kernel_is_the_machines_fault(monkeypatch):
    monkeypatch.setattr(parallel, "num_processes", lambda: 2)
    with pytest.raises(MachineFault, match="killed, as the kernel does when memory runs out"):
        list(in_parallel(NUM_ROWS, lambda part: os.kill(os.getpid(), signal.SIGKILL)))


def test_only_a_few_parts_are_worked_on_ahead_of_the_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "num_processes", lambda: 2)

    def work(part):
        (tmp_path / str(part.start)).touch()

    found = in_parallel(20_000, work)
    next(found)
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= 6
    found.close()


def test_the_processes_end_with_a_parent_that_is_killed(tmp_path):
    program = """
import os, sys, time
from deita_train.data import parallel
parallel.num_processes = lambda: 2
def work(part):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    time.sleep(60)
list(parallel.in_parallel(2000, work))
"""
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
