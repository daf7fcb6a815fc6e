"""Answers by two ranks, and after a SIGKILL at a random moment: the table of one undisturbed rank, byte for byte."""

import os
import random
import signal
import time
from dataclasses import replace

import pytest
import torch
from forked_ranks import rank_environment, start_ranks
from generate_stages import QUESTIONS, generate_context, question
from pass_stages import make_model
from test_pass_kills import finish, free_port

from deita_train.stages.checks import content_digest
from deita_train.stages.context import Progress
from deita_train.stages.evaluating import generate, local_answers

ASKED = [*QUESTIONS, *(question(f"more-{n}", "Name it. " * (n % 7), "Why?", category="writing") for n in range(1, 16))]
CHANGES = {"max_batch_tokens": 500, "temperature": {"writing": 1.5}, "seed": 3}
SECONDS_A_BATCH = 0.03
# Ranks before the kill, ranks after it.
MOMENTS = [(1, 2), (2, 1)]
FAULTS = [(before, after, seed) for seed in range(4) for before in (1, 2) for after in (1, 2, 3)]


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    """The digest of the table of one rank, and the number of its shards."""
    folder = new_work(tmp_path_factory.mktemp("generate"))
    finish(start(processes, folder, 1))
    return content_digest(folder / "work"), len(shards(folder))


def new_work(folder):
    make_model(folder / "model", context_length=320)
    generate.prepare(generate_context(folder, ASKED, **CHANGES))
    return folder


def start(processes, folder, world_size):
    return start_ranks(processes, be_a_rank, folder, world_size, free_port())


def be_a_rank(folder, rank, world_size, port):
    """Target of a child: one rank, on one thread, that takes some time for each batch."""
    torch.set_num_threads(1)
    os.environ |= {**rank_environment(rank, world_size, port), "OMP_NUM_THREADS": "1"}
    kept = local_answers.write_shard
    local_answers.write_shard = lambda *shard: (time.sleep(SECONDS_A_BATCH), kept(*shard))
    context = generate_context(folder, ASKED, **CHANGES)
    if world_size > 1:
        launch = {**context.runtime["launch"], "config_file": "cpu_ddp", "distributed_type": "MULTI_GPU"}
        context.runtime["launch"] = {**launch, "num_processes": world_size}
    result = generate.run(replace(context, rank=rank, world_size=world_size, progress=Progress(None)))
    assert (result is None) == (rank > 0)


def shards(folder):
    return list((folder / "work" / "shards").glob("turn-*/*.parquet"))


def check(processes, undisturbed, folder, before, after, seed):
    digest, number = undisturbed
    new_work(folder)
    ranks, drawn = start(processes, folder, before), random.Random(seed)
    share, seconds, deadline = drawn.uniform(0.0, 0.85), drawn.uniform(0, SECONDS_A_BATCH), time.monotonic() + 60
    while len(shards(folder)) < share * number and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGKILL)
        rank.join()
    there = {path: path.stat().st_mtime_ns for path in shards(folder)}
    assert len(there) < number, "all was answered before the kill"
    finish(start(processes, folder, after))
    assert content_digest(folder / "work") == digest
    made = {path: path.stat().st_mtime_ns for path in shards(folder)}
    assert there.items() <= made.items() and len(made) == number


def test_two_ranks_write_the_table_of_one(processes, undisturbed, tmp_path):
    new_work(tmp_path)
    finish(start(processes, tmp_path, 2))
    assert (content_digest(tmp_path / "work"), len(shards(tmp_path))) == undisturbed
    assert undisturbed[1] > 10


@pytest.mark.parametrize(("before", "after"), MOMENTS)
def test_killed_at_a_random_moment_and_continued_by_other_ranks(processes, undisturbed, tmp_path, before, after):
    check(processes, undisturbed, tmp_path, before, after, f"answers {before}")


@pytest.mark.faults
@pytest.mark.parametrize(("before", "after", "seed"), FAULTS)
def test_killed_at_any_moment_and_continued(processes, undisturbed, tmp_path, before, after, seed):
    check(processes, undisturbed, tmp_path, before, after, seed)
