import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from deita_train.run import display
from deita_train.run.display import Display
from deita_train.stages import context
from deita_train.stages.context import Progress


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def make(total=12, terminal=False):
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)
    return Display(console, total), console.file


def lines(output):
    return [" ".join(line.split()) for line in output.getvalue().splitlines()]


def progress(folder, done, total, unit="batches", detail="", step="", *, first=0, seconds=10.0):
    path = folder / "progress.json"
    told = {"done": done, "total": total, "unit": unit, "detail": detail, "step": step}
    path.write_text(json.dumps({**told, "first": first, "seconds": seconds}))
    return path


def test_a_finished_and_a_skipped_stage_leave_one_line_each(clock, tmp_path):
    shown, output = make()
    shown.skip("pool", "", "already done")
    shown.start("sft", "sft.seed=1", tmp_path / "progress.json")
    clock.now += 12.34
    shown.finish("40 rows")
    assert lines(output) == ["[ 1/12] pool already done", "[ 2/12] sft (sft.seed=1) 12.3 s 40 rows"]


def test_brackets_in_a_cell_are_no_markup(clock, tmp_path):
    shown, output = make()
    shown.start("select", "select.budget=[bold]", tmp_path / "progress.json")
    shown.finish("failed [red]")
    assert lines(output) == ["[ 1/12] select (select.budget=[bold]) 0.0 s failed [red]"]


def test_a_log_gets_a_line_every_half_minute(clock, tmp_path):
    shown, output = make()
    shown.start("embed", "", progress(tmp_path, 1, 4, seconds=40.0))
    for _ in range(9):
        clock.now += 10
        shown.tick()
    assert lines(output) == [
        "[ 1/12] embed 40.0 s 1/4 batches about 2 min left run: about 2 min left",
        "[ 1/12] embed 80.0 s 1/4 batches about 2 min left run: about 2 min left",
    ]


def line_at(clock, shown, seconds):
    clock.now += seconds
    return " ".join(shown._line().split())


def test_the_time_that_is_left_by_hand(clock, tmp_path):
    shown, _ = make()
    shown.expect({"sft": 100.0, "evaluate": 20.0}, ["sft", "sft", "evaluate"])
    shown.start("embed", "", progress(tmp_path, 20, 100, detail="3,000 tokens/s"))
    # 10 s for a fifth: 40 s left; then 100 + 100 + 20.
    assert line_at(clock, shown, 10) == (
        "[ 1/12] embed 10.0 s 20/100 batches 3,000 tokens/s about 40 s left run: about 4 min left"
    )


def test_no_time_is_guessed_for_the_run_while_a_kind_is_unknown(clock, tmp_path):
    shown, _ = make()
    shown.expect({"sft": 100.0}, ["sft", "evaluate"])
    shown.start("embed", "", progress(tmp_path, 50, 100))
    assert line_at(clock, shown, 10) == "[ 1/12] embed 10.0 s 50/100 batches about 10 s left"


def test_no_time_is_guessed_at_the_very_beginning(clock, tmp_path):
    shown, _ = make()
    shown.start("embed", "", progress(tmp_path, 3, 100))
    assert line_at(clock, shown, 10) == "[ 1/12] embed 10.0 s 3/100 batches"


@pytest.mark.parametrize("total", [0, None])
def test_a_stage_that_does_not_know_its_size(clock, tmp_path, total):
    shown, _ = make()
    shown.start("embed", "", progress(tmp_path, 0, total) if total is not None else tmp_path / "none.json")
    assert line_at(clock, shown, 10) == "[ 1/12] embed 10.0 s"


def test_the_progress_file_may_vanish_while_it_is_read(clock, tmp_path, monkeypatch):
    shown, _ = make()
    path = progress(tmp_path, 50, 100)
    shown.start("embed", "", path)
    read = display.read_json

    def read_after_publishing(file):
        path.unlink()
        return read(file)

    monkeypatch.setattr(display, "read_json", read_after_publishing)
    assert line_at(clock, shown, 10) == "[ 1/12] embed 10.0 s"


def test_a_terminal_gets_a_live_line_that_ends_with_the_stage(tmp_path):
    shown, output = make(terminal=True)
    shown.start("embed", "", progress(tmp_path, 1, 4))
    shown.tick()
    assert shown._live is not None
    shown.finish("40 rows")
    assert shown._live is None
    assert "40 rows" in output.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (36000, "10.0 h")],
)
def test_durations(seconds, text):
    assert display._duration(seconds) == text


def test_preparation_is_a_step_of_its_own_with_its_rate_and_time_left(clock, tmp_path):
    shown, _ = make()
    shown.expect({}, [])
    shown.start("embed", "", progress(tmp_path, 0, 1000, "rows rendered", step="preparing", seconds=0.0))
    assert line_at(clock, shown, 0) == "[ 1/12] embed 0.0 s preparing 0/1000 rows rendered"
    progress(tmp_path, 200, 1000, "rows rendered", step="preparing", seconds=4.0)
    # 200 rows in 4 s: 800 more take 16 s, and what comes after them is not known.
    assert line_at(clock, shown, 4) == "[ 1/12] embed 4.0 s preparing 200/1000 rows rendered 50/s about 16 s left"
    progress(tmp_path, 0, 0, "", step="loading")
    assert line_at(clock, shown, 8) == "[ 1/12] embed 12.0 s loading"
    progress(tmp_path, 0, 100, "tokens", seconds=0.0)
    assert line_at(clock, shown, 8) == "[ 1/12] embed 20.0 s 0/100 tokens"
    progress(tmp_path, 25, 100, "tokens", seconds=10.0)
    # A quarter took 10 s of its own: 30 s are left, for the run too.
    assert line_at(clock, shown, 10) == ("[ 1/12] embed 30.0 s 25/100 tokens about 30 s left run: about 30 s left")


def test_what_an_earlier_attempt_did_is_no_speed_of_this_one(clock, tmp_path):
    """Resumed at step 60 of 100: 10 more steps in 20 s, so the last 30 take a minute."""
    shown, _ = make()
    shown.start("sft", "", progress(tmp_path, 60, 100, "steps", first=60, seconds=0.0))
    shown.expect({}, ["dpo"])
    assert line_at(clock, shown, 30) == "[ 1/12] sft 30.0 s 60/100 steps"
    progress(tmp_path, 70, 100, "steps", first=60, seconds=20.0)
    assert line_at(clock, shown, 20) == "[ 1/12] sft 50.0 s 70/100 steps about 60 s left"


def test_a_stage_tells_when_it_began_and_with_what(tmp_path, monkeypatch):
    ticks = iter([100.0, 104.0, 110.0])
    monkeypatch.setattr(context, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    reported = Progress(tmp_path / "progress.json")
    found = []
    for done in (60, 61, 70):
        reported.update(done, 100, "steps")
        found.append(json.loads((tmp_path / "progress.json").read_text()))
    assert [(of["done"], of["first"], of["seconds"]) for of in found] == [(60, 60, 0.0), (61, 60, 4.0), (70, 60, 10.0)]
