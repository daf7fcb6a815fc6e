"""SIGKILL between and inside the blocks of an embedding along the walk, then any number of ranks: the same table."""

import os
import signal
import time
from dataclasses import replace
from functools import partial

import datasets
import numpy as np
import pytest
import torch
from forked_ranks import rank_environment, start_ranks
from pass_stages import conversations, make_model, pass_context
from test_pass_kills import finish, free_port, kept_batches, shards
from walked_recipe import GROUP_ROWS

from deita_train.stages.checks import content_digest
from deita_train.stages.context import Progress
from deita_train.stages.inference import batched_pass as passes
from deita_train.stages.inference import embed, walk_order, walked_embedding

ROWS = conversations(90)
WALK = {"method": "deita", "budget": 14, "threshold": 0.8, "score": "evol", "score_turns": "sum", "center": False}
SECONDS = 0.02
# The block after which, or within which, the ranks are killed; how many there are before and after.
MOMENTS = [("between", 1, 2, 1), ("inside", 1, 1, 2)]
FAULTS = [
    (where, block, before, after)
    for where in ("between", "inside")
    for block in (0, 1, 2)
    for before in (1, 2)
    for after in (1, 3)
]


def context_of(folder):
    """The embedding along a walk whose scores are drawn from a seed."""
    rng = np.random.default_rng(5)
    context = pass_context("embed", folder, ROWS, max_batch_tokens=400)
    names = ("complexity", "quality")
    for name in names:
        scores = [rng.integers(1, 6, len(row["messages"]) // 2).astype(float).tolist() for row in ROWS]
        if not (folder / name).exists():
            table = {"id": [row["id"] for row in ROWS], f"{name}_scores": scores}
            datasets.Dataset.from_dict(table).save_to_disk(str(folder / name / "data"))
    return replace(
        context,
        identity={**context.identity, "walk": WALK},
        runtime={**context.runtime, "walk": WALK},
        parents={**context.parents, **{name: folder / name for name in names}},
    )


def new_work(folder, monkeypatch):
    """A prepared stage."""
    for module in (walk_order, walked_embedding):
        monkeypatch.setattr(module, "GROUP_ROWS", GROUP_ROWS)
    make_model(folder / "model")
    embed.prepare(context_of(folder))
    return folder


def start(processes, folder, world_size):
    """The ranks, at work."""
    return start_ranks(processes, be_a_rank, folder, world_size, free_port())


def be_a_rank(folder, rank, world_size, port):
    """Target of a child: one rank, with a shard after every batch, that leaves a file after each block and waits."""
    torch.set_num_threads(1)
    os.environ |= {**rank_environment(rank, world_size, port), "OMP_NUM_THREADS": "1"}
    for module in (walk_order, walked_embedding):
        module.GROUP_ROWS = GROUP_ROWS
    walked_embedding.Pass = partial(passes.Pass, flush_seconds=0.0)
    tick, go_on = walked_embedding._Watch.tick, walked_embedding._Walk.go_on
    walked_embedding._Watch.tick = lambda watch: (time.sleep(SECONDS), tick(watch))

    def leave_a_mark(walk, known):
        go_on(walk, known)
        (folder / f"block-{len([*folder.glob('block-*')])}").touch()
        time.sleep(10 * SECONDS)

    walked_embedding._Walk.go_on = leave_a_mark
    context = context_of(folder)
    if world_size > 1:
        launch = {"num_processes": world_size, "distributed_type": "MULTI_GPU", "use_cpu": True}
        context.runtime["launch"] = {"config_file": "cpu_ddp", **launch}
    progress = context.progress if rank == 0 else Progress(None)
    embed.run(replace(context, rank=rank, world_size=world_size, progress=progress))


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    """The digest of the table that one rank made, its number of batches and of blocks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patched:
        finish(start(processes, new_work(folder, patched), 1))
    return content_digest(folder / "work"), kept_batches(folder), len([*folder.glob("block-*")])


def kill(ranks, folder, where, block):
    """SIGKILL to all ranks once that block is over, or once a batch of the next one is kept."""
    deadline = time.monotonic() + 60
    while not (folder / f"block-{block}").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    there = len(shards(folder))
    while where == "inside" and len(shards(folder)) == there and time.monotonic() < deadline:
        time.sleep(0.001)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGKILL)
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [-signal.SIGKILL] * len(ranks)


def check(processes, undisturbed, folder, monkeypatch, where, block, before, after):
    digest, batches, _ = undisturbed
    new_work(folder, monkeypatch)
    kill(start(processes, folder, before), folder, where, block)
    there = {path: path.stat().st_mtime_ns for path in shards(folder)}
    assert 0 < len(there) < len(batches)
    finish(start(processes, folder, after))
    assert content_digest(folder / "work") == digest
    # What was there is neither lost nor computed again, nothing is there twice, and nothing beyond what is needed.
    assert there.items() <= {path: path.stat().st_mtime_ns for path in shards(folder)}.items()
    assert sorted(kept_batches(folder)) == sorted(batches)


def test_the_walk_takes_several_blocks_and_leaves_batches_out(undisturbed):
    _, batches, blocks = undisturbed
    assert blocks >= 4 and len(set(batches)) == len(batches)


@pytest.mark.parametrize(("where", "block", "before", "after"), MOMENTS)
def test_killed_and_continued_by_other_ranks(
    processes, undisturbed, tmp_path, monkeypatch, where, block, before, after
):
    check(processes, undisturbed, tmp_path, monkeypatch, where, block, before, after)


@pytest.mark.faults
@pytest.mark.parametrize(("where", "block", "before", "after"), FAULTS)
def test_killed_at_any_block_and_continued_by_any_number_of_ranks(
    processes, undisturbed, tmp_path, monkeypatch, where, block, before, after
):
    check(processes, undisturbed, tmp_path, monkeypatch, where, block, before, after)
