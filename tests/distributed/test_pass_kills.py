"""SIGKILL at a random moment of a pass, then any number of ranks: the table of an undisturbed pass, byte for byte."""

import os
import random
import signal
import socket
import time
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest
import torch
from pass_stages import conversations, make_model, pass_context

from deita_train.stages.checks import content_digest
from deita_train.stages.context import Progress
from deita_train.stages.inference import batched_pass as passes
from deita_train.stages.inference import embed, perplexity, score

MODULES = {"score": score, "embed": embed, "perplexity": perplexity}
ROWS = conversations(61)  # an odd number
BATCH_TOKENS = 200
# Some fifty batches of a miniature are over at once: so long each of them takes at least, and a shard holds one.
SECONDS_A_BATCH = 0.02
# Kind, ranks before the kill, ranks after it.
MOMENTS = [("score", 1, 2), ("embed", 2, 1), ("perplexity", 1, 1)]
FAULTS = [
    (kind, before, after, seed)
    for seed, (kind, before, after) in enumerate(
        [(kind, before, after) for kind in MODULES for before in (1, 2) for after in (1, 2, 3)] + [*MOMENTS[:2]]
    )
]


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    """The digest of each kind's table, made by one rank that nothing disturbed, and the number of its batches."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = new_work(kind, tmp_path_factory.mktemp(kind))
            finish(start(processes, kind, folder, 1))
            made[kind] = content_digest(folder / "work"), len(kept_batches(folder))
        return made[kind]

    return of


def new_work(kind, folder):
    """A prepared stage."""
    make_model(folder / "model")
    MODULES[kind].prepare(pass_context(kind, folder, ROWS, max_batch_tokens=BATCH_TOKENS))
    return folder


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(processes, kind, folder, world_size):
    """The ranks of a pass, at work."""
    port = free_port()
    ranks = [
        processes.Process(target=be_a_rank, args=(kind, folder, rank, world_size, port)) for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def be_a_rank(kind, folder, rank, world_size, port):
    """Target of a child: one rank of the pass, on one thread, with a shard after every batch."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    passes.Pass = partial(passes.Pass, flush_seconds=0.0)
    tick = passes._Watch.tick
    passes._Watch.tick = lambda watch: (time.sleep(SECONDS_A_BATCH), tick(watch))
    context = pass_context(kind, folder, ROWS, max_batch_tokens=BATCH_TOKENS)
    if world_size > 1:
        launch = {
            "config_file": "cpu_ddp",
            "num_processes": world_size,
            "distributed_type": "MULTI_GPU",
            "use_cpu": True,
        }
        context.runtime["launch"] = launch
    progress = context.progress if rank == 0 else Progress(None)
    MODULES[kind].run(replace(context, rank=rank, world_size=world_size, progress=progress))


def finish(ranks):
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0] * len(ranks)


def shards(folder):
    return list((folder / "work" / "shards").glob("*.parquet"))


def kept_batches(folder):
    """The numbers of the batches in the shards, however often each is there."""
    tables = [pq.read_table(path, columns=["batch"]) for path in shards(folder)]
    return [number for table in tables for number in set(table["batch"].to_pylist())]


def moment(seed):
    """The share of the pass that is over, and the seconds that it goes on from there; the seed repeats a failure."""
    drawn = random.Random(seed)
    return drawn.uniform(0.0, 0.9), drawn.uniform(0.0, 2 * SECONDS_A_BATCH)


def kill(ranks, folder, num_batches, seed):
    """SIGKILL to all ranks at the moment that the seed draws."""
    share, seconds = moment(seed)
    deadline = time.monotonic() + 60
    while len(shards(folder)) < share * num_batches and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGKILL)
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [-signal.SIGKILL] * len(ranks)


def check(processes, undisturbed, folder, kind, before, after, seed):
    digest, num_batches = undisturbed(kind)
    new_work(kind, folder)
    kill(start(processes, kind, folder, before), folder, num_batches, seed)
    there = {path: path.stat().st_mtime_ns for path in shards(folder)}
    assert len(there) < num_batches, "the pass was over before the kill"
    finish(start(processes, kind, folder, after))
    assert content_digest(folder / "work") == digest
    # What was there is neither lost nor computed again, and nothing is there twice.
    assert there.items() <= {path: path.stat().st_mtime_ns for path in shards(folder)}.items()
    assert sorted(kept_batches(folder)) == list(range(num_batches))


@pytest.mark.parametrize(("kind", "before", "after"), MOMENTS)
def test_killed_at_a_random_moment_and_continued_by_other_ranks(processes, undisturbed, tmp_path, kind, before, after):
    check(processes, undisturbed, tmp_path, kind, before, after, f"{kind} {before}")


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "before", "after", "seed"), FAULTS)
def test_killed_at_any_moment_and_continued_by_any_number_of_ranks(
    processes, undisturbed, tmp_path, kind, before, after, seed
):
    check(processes, undisturbed, tmp_path, kind, before, after, seed)


def test_the_moments_are_spread_over_the_pass():
    assert len(FAULTS) == 20
    shares = [moment(seed)[0] for *_, seed in FAULTS]
    assert min(shares) < 0.1 and max(shares) > 0.75
