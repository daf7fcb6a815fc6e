"""SIGKILL of tasks of lm-evaluation-harness while a model is asked: what was answered is not asked again."""

import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest
import torch
from lm_eval_tasks import lm_eval_context, write_choice_task
from pass_stages import make_model

from deita_train.stages.checks import content_digest
from deita_train.stages.context import Progress
from deita_train.stages.evaluating import lm_eval
from deita_train.stages.inference import batched_pass as passes

pytest.importorskip("lm_eval", reason="the extra eval is not installed")

from deita_train.evaluation import harness_requests

QUESTIONS, CHOICES, BATCH_SIZE = 25, 3, 2
BATCHES = 13
SECONDS_A_BATCH = 0.05


def context_of(folder):
    return lm_eval_context(
        folder, ["local_choice"], include=[str(folder / "tasks")], num_fewshot=2, batch_size=BATCH_SIZE
    )


@pytest.fixture
def prepared(tmp_path):
    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        make_model(folder / "model")
        write_choice_task(folder / "tasks", rows=QUESTIONS)
        lm_eval.prepare(context_of(folder))
        return folder

    return make


def be_asked(folder):
    """Target of a child: one rank on one thread, with a shard after each batch, and a line in the log for each."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    passes.Pass = partial(passes.Pass, flush_seconds=-1.0)
    answered = harness_requests.answered

    def logged(model, requests, seed):
        with (folder / "asked").open("a") as log:
            log.write(json.dumps([request.arguments for request in requests]) + "\n")
        time.sleep(SECONDS_A_BATCH)
        return answered(model, requests, seed)

    harness_requests.answered = logged
    lm_eval.run(replace(context_of(folder), progress=Progress(None)))


def finish(processes, folder):
    """The stage to its end; what it asks, in the order of asking."""
    (folder / "asked").unlink(missing_ok=True)
    child = processes.Process(target=be_asked, args=(folder,))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    return asked(folder)


def asked(folder):
    log = folder / "asked"
    return (
        [arguments for line in log.read_text().splitlines() for arguments in json.loads(line)] if log.exists() else []
    )


def kept(folder):
    """The arguments of the requests whose answers are in shards."""
    requests = pq.read_table(folder / "work" / "prepared" / "requests.parquet")["arguments"].to_pylist()
    files = (folder / "work" / "shards").glob("*.parquet")
    return [requests[item] for file in files for item in pq.read_table(file, columns=["item"])["item"].to_pylist()]


@pytest.mark.faults
def test_after_a_kill_only_what_has_no_answer_is_asked(processes, prepared):
    undisturbed = prepared("undisturbed")
    every = finish(processes, undisturbed)
    assert len(every) == len(set(every)) == QUESTIONS * CHOICES and sorted(kept(undisturbed)) == sorted(every)
    for seed in range(4):
        folder = prepared(str(seed))
        drawn = random.Random(seed)
        wanted, seconds = drawn.randrange(1, BATCHES - 1), drawn.uniform(0, 2 * SECONDS_A_BATCH)
        child = processes.Process(target=be_asked, args=(folder,))
        child.start()
        deadline = time.monotonic() + 120
        while len(asked(folder)) < wanted * BATCH_SIZE * CHOICES:
            assert child.is_alive() and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "the stage was over before the kill"
        there = kept(folder)
        assert wanted - 1 <= len(there) / (BATCH_SIZE * CHOICES) < BATCHES
        assert Counter(finish(processes, folder)) == Counter(every) - Counter(there)
        assert content_digest(folder / "work") == content_digest(undisturbed / "work")
