import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_train.errors import UserError
from deita_train.inference.batch_inference import Pass
from deita_train.inference.batches import Batches, BatchPlan, share_batches
from deita_train.inference.shards import check_shards, collect, split_batches
from deita_train.inference.speed import Speed

BATCHES = [[6, 1], [0], [5, 3, 2], [4], [7, 8], [9], [10]]
NUM_ITEMS = 11
PLAN = BatchPlan(Batches.of(BATCHES), np.array([4, 8, 2, 3, 3, 4, 8, 2, 1, 1, 1]), 16)
COLUMNS = ("score", "vector")


class Counted:
    """A computation that knows what it was asked for. It may stop at one batch, and takes at most `memory` rows."""

    def __init__(self, stop_at=None, memory=99):
        self.calls = []
        self.stop_at = stop_at
        self.memory = memory

    def __call__(self, positions):
        if list(positions) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(list(positions))
        if len(positions) > self.memory:
            raise torch.cuda.OutOfMemoryError("as a GPU would say")
        items = np.array(positions)
        vectors = np.stack([items, items**2, -items], axis=1).astype(np.float32)
        return {"score": (items / 7).astype(np.float32), "vector": vectors}


def make_pass(folder, compute, plan=PLAN, flush_seconds=-1.0):
    """With a negative flush time every batch becomes a shard of its own."""
    return Pass(plan, folder, compute, Speed(), lambda: None, flush_seconds)


def missing(folder):
    done, distrusted = check_shards(folder, PLAN, COLUMNS)
    assert distrusted == {}
    return [number for number in range(len(BATCHES)) if number not in done]


def run_ranks(folder, computes):
    """One rank after the other, on what was missing before the first; each as a launch would share it."""
    shares = share_batches({number: PLAN.cost(number) for number in missing(folder)}, len(computes))
    for compute, share in zip(computes, shares, strict=True):
        make_pass(folder, compute).run(share)


def check_result(folder):
    items = np.arange(NUM_ITEMS)
    columns = collect(folder, NUM_ITEMS)
    np.testing.assert_array_equal(columns["score"], (items / 7).astype(np.float32))
    np.testing.assert_array_equal(columns["vector"], np.stack([items, items**2, -items], axis=1))


@pytest.mark.parametrize("flush_seconds", [-1.0, 1000.0])
def test_batches_are_computed_in_the_order_given(tmp_path, flush_seconds):
    folder = tmp_path / "deep" / "shards"
    compute = Counted()
    make_pass(folder, compute, flush_seconds=flush_seconds).run([2, 0, 1, 3, 4, 5, 6])
    assert compute.calls == [BATCHES[2], BATCHES[0], BATCHES[1], *BATCHES[3:]]
    check_result(folder)
    assert len(list(folder.glob("*.parquet"))) == (len(BATCHES) if flush_seconds < 0 else 1)


def test_a_restart_computes_only_the_missing_batches(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_pass(tmp_path, Counted(stop_at=[4])).run(range(7))
    assert missing(tmp_path) == [3, 4, 5, 6]
    again = Counted()
    run_ranks(tmp_path, [again])
    assert sorted(again.calls) == sorted(BATCHES[3:])
    check_result(tmp_path)
    third = Counted()
    run_ranks(tmp_path, [third])
    assert third.calls == []


def test_a_stop_before_the_first_flush_loses_what_was_not_written(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_pass(tmp_path, Counted(stop_at=[4]), flush_seconds=1000.0).run(range(7))
    assert missing(tmp_path) == list(range(7))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 9), st.lists(st.sampled_from(range(7)), min_size=9, max_size=9)), max_size=4))
def test_restarts_at_any_world_sizes_compute_each_batch_once(tmp_path_factory, attempts):
    """Each attempt has a world size, and for each rank the batch at which it is killed, if it comes to it."""
    folder = tmp_path_factory.mktemp("shards")
    calls = []
    for world_size, stops in attempts:
        shares = share_batches({number: PLAN.cost(number) for number in missing(folder)}, world_size)
        for share, stop in zip(shares, stops, strict=False):
            compute = Counted(stop_at=BATCHES[stop])
            if stop in share:
                with pytest.raises(KeyboardInterrupt):
                    make_pass(folder, compute).run(share)
            else:
                make_pass(folder, compute).run(share)
            calls += compute.calls
    last = [Counted(), Counted()]
    run_ranks(folder, last)
    assert sorted(calls + last[0].calls + last[1].calls) == sorted(BATCHES)
    check_result(folder)


def test_more_ranks_than_batches(tmp_path):
    computes = [Counted() for _ in range(9)]
    run_ranks(tmp_path, computes)
    assert [len(compute.calls) for compute in computes] == [1] * 7 + [0] * 2
    check_result(tmp_path)


def test_nothing_to_do(tmp_path):
    make_pass(tmp_path, Counted()).run([])
    assert list(tmp_path.iterdir()) == []


def test_what_was_computed_is_counted_and_reported_after_each_batch(tmp_path):
    speed, seen = Speed(), []
    Pass(PLAN, tmp_path, Counted(), speed, lambda: seen.append((speed.rows, speed.tokens))).run([0, 2, 3])
    # Rows of 8 and 8 tokens; of 4, 3 and 2; of 3.
    assert seen == [(2, 16), (5, 25), (6, 28)]
    assert 0 < speed.seconds < 60


def test_a_batch_too_large_for_the_memory_is_computed_in_halves(tmp_path):
    positions = [3, 1, 4, 0, 5, 2, 6]
    plan = BatchPlan(Batches.of([positions]), np.array([4] * 7), 28)
    compute = Counted(memory=2)
    make_pass(tmp_path, compute, plan).run([0])
    # 7 rows do not fit: 3 and 4. Three fail likewise (12 tokens), and after that the four (16) are not even tried.
    assert compute.calls == [positions, [3, 1, 4], [3], [1, 4], [0, 5], [2, 6]]
    expected = np.arange(7) / 7
    np.testing.assert_array_equal(collect(tmp_path, 7)["score"], expected.astype(np.float32))
    assert split_batches(tmp_path) == [0]


def test_a_batch_as_large_as_one_that_failed_is_halved_without_a_try(tmp_path):
    # 16, 12 and 8 tokens; what failed with 16 is not tried above 12.
    plan = BatchPlan(Batches.of([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]), np.array([4] * 11), 16)
    compute = Counted(memory=3)
    make_pass(tmp_path, compute, plan).run([0, 1, 2])
    assert compute.calls == [[0, 1, 2, 3], [0, 1], [2, 3], [4, 5], [6, 7], [8, 9, 10]]
    assert split_batches(tmp_path) == [0, 1]


def test_the_cache_is_emptied_before_the_halves(tmp_path, monkeypatch):
    compute, emptied_at = Counted(memory=1), []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied_at.append(len(compute.calls)))
    make_pass(tmp_path, compute, BatchPlan(Batches.of([[0, 1]]), np.array([4, 4]), 8)).run([0])
    assert emptied_at == [1]
    assert compute.calls == [[0, 1], [0], [1]]


def test_the_failed_attempts_tensors_are_gone_before_the_halves(tmp_path):
    """The traceback of a caught error keeps its frames alive, and with them what filled the memory."""
    alive = weakref.WeakSet()

    class Activation:
        pass

    def compute(positions):
        assert not alive, "an attempt before this one still holds its memory"
        activation = Activation()
        alive.add(activation)
        if len(positions) > 1:
            raise torch.cuda.OutOfMemoryError
        return {"score": np.zeros(1)}

    make_pass(tmp_path, compute, BatchPlan(Batches.of([[0, 1, 2]]), np.array([4, 4, 4]), 12)).run([0])
    assert len(collect(tmp_path, 3)["score"]) == 3


def test_a_row_too_large_alone_is_the_users(tmp_path):
    plan = BatchPlan(Batches.of([[0, 1]]), np.array([4000, 3000]), 8192)
    with pytest.raises(UserError, match=r"a row of 4,000 tokens is too large .* \(max_batch_tokens was 8,192\)"):
        make_pass(tmp_path, Counted(memory=0), plan).run([0])


def test_other_errors_are_not_swallowed(tmp_path):
    def fail(positions):
        raise RuntimeError("another reason")

    with pytest.raises(RuntimeError, match="another reason"):
        make_pass(tmp_path, fail).run([0])
