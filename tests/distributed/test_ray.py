"""A run on a real Ray cluster on this machine, one of its workers killed in the middle: the undivided bytes."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from part_stages import node_of, write_recipe
from smoke_run import run_environment

from deita_train.run.child.stage_process import run_stage

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"),
    pytest.mark.timeout(900),
]
SETS = ("embedding.max_batch_tokens=60",)


def test_a_worker_killed_in_the_middle_changes_no_byte(tmp_path):
    recipe, runs = write_recipe(tmp_path, rows=1500), tmp_path / "runs"
    sets = [part for text in SETS for part in ("--set", text)]
    command = [sys.executable, "-m", "deita_train.cli", "run", str(recipe), "--runs", str(runs), "--until", "embed"]
    run = subprocess.Popen(
        [*command, *sets, "--ray", "local", "--parts", "4"],
        env=run_environment() | {"RAY_TMPDIR": os.environ.get("RAY_TMPDIR", "/tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        store, node = node_of(recipe, runs, "embed", *SETS)
        part, progress = part_at_work(store.work_path(node.id), run)
        pid = process_of(store, node, part)
        worker = parent_of(pid)
        assert "ray" in command_of(worker) and 0 < progress["done"] < progress["total"]
        os.kill(worker, signal.SIGKILL)
        output, _ = run.communicate(timeout=800)
    finally:
        run.kill()
    assert run.returncode == 0, output
    log = (store.path(node.id) / "logs" / f"part-{part}.log").read_text()
    assert not is_alive(pid) and log.count("rank 0: ") >= 1
    run_stage(recipe, SETS, tmp_path / "undivided", "pool")
    run_stage(recipe, SETS, tmp_path / "undivided", "embed")
    assert store.manifest(node.id).content_digest == node_digest(recipe, tmp_path / "undivided")
    assert store.metrics(node.id)["parts"] == 4


def node_digest(recipe, runs):
    store, node = node_of(recipe, runs, "embed", *SETS)
    return store.manifest(node.id).content_digest


def part_at_work(work_dir, run):
    """The first part that is in the middle of its batches, and its progress."""
    deadline = time.monotonic() + 700
    while time.monotonic() < deadline and run.poll() is None:
        for path in work_dir.glob("parts/*/progress.json"):
            progress = json.loads(path.read_text())
            if progress["done"] < 0.7 * progress["total"]:
                return path.parent.name, progress
        time.sleep(0.005)
    raise AssertionError(f"no part was seen at work: {run.communicate()[0]}")


def process_of(store, node, part):
    """The process that does a part, by its lock."""
    lock = store.folder / ".locks" / f"{node.id}.part-{part}.lock"
    return json.loads(lock.read_text())["pid"]


def parent_of(pid):
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("PPid:"))


def command_of(pid):
    with open(f"/proc/{pid}/cmdline") as command:  # noqa: PTH123
        return command.read()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
