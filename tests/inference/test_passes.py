import numpy as np
import pytest

from deita_train.inference.passes import Pass, collect, completed_batches, read_plan, write_plan

BATCHES = [[6, 1], [0], [5, 3, 2], [4], [7, 8], [9], [10]]
NUM_ITEMS = 11


class Counted:
    """A computation that knows which batches it was asked for, and may stop at one of them."""

    def __init__(self, stop_at=None):
        self.calls = []
        self.stop_at = stop_at

    def __call__(self, positions):
        if list(positions) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(list(positions))
        items = np.array(positions)
        vectors = np.stack([items, items**2, -items], axis=1).astype(np.float32)
        return {"score": (items / 7).astype(np.float32), "vector": vectors}


def make_pass(folder, compute, rank=0, world_size=1, flush_seconds=-1.0, on_progress=lambda done, total: None):
    """With a negative flush time every batch becomes a shard of its own."""
    return Pass(BATCHES, folder, rank, world_size, compute, on_progress, flush_seconds)


def check_result(folder):
    items = np.arange(NUM_ITEMS)
    columns = collect(folder, NUM_ITEMS)
    assert sorted(columns) == ["score", "vector"]
    assert columns["score"].dtype == columns["vector"].dtype == np.float32
    np.testing.assert_array_equal(columns["score"], (items / 7).astype(np.float32))
    np.testing.assert_array_equal(columns["vector"], np.stack([items, items**2, -items], axis=1))


@pytest.mark.parametrize("flush_seconds", [-1.0, 1000.0])
def test_items_are_joined_in_item_order(tmp_path, flush_seconds):
    folder = tmp_path / "deep" / "shards"
    compute = Counted()
    make_pass(folder, compute, flush_seconds=flush_seconds).run()
    assert compute.calls == BATCHES
    check_result(folder)
    assert len(list(folder.iterdir())) == (len(BATCHES) if flush_seconds < 0 else 1)


def test_a_restart_computes_only_the_missing_batches(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_pass(tmp_path, Counted(stop_at=[4])).run()
    assert completed_batches(tmp_path) == {0, 1, 2}
    again = Counted()
    make_pass(tmp_path, again).run()
    assert again.calls == BATCHES[3:]
    check_result(tmp_path)
    third = Counted()
    make_pass(tmp_path, third).run()
    assert third.calls == []
    check_result(tmp_path)


def test_a_stop_before_the_first_flush_loses_what_was_not_written(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_pass(tmp_path, Counted(stop_at=[4]), flush_seconds=1000.0).run()
    assert completed_batches(tmp_path) == set()


def test_two_ranks_share_the_batches(tmp_path):
    computes = [Counted(), Counted()]
    for rank in (1, 0):
        # Rank 0 starts after rank 1 has finished, and must not count rank 1's batches as its own.
        make_pass(tmp_path, computes[rank], rank=rank, world_size=2, flush_seconds=1000.0).run()
    assert computes[0].calls == BATCHES[0::2]
    assert computes[1].calls == BATCHES[1::2]
    check_result(tmp_path)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
def test_a_restart_at_another_world_size_computes_each_batch_once(tmp_path, before, after):
    calls = []
    for rank in range(before):
        compute = Counted(stop_at=[5, 3, 2] if rank == 0 else [4])
        with pytest.raises(KeyboardInterrupt):
            make_pass(tmp_path, compute, rank=rank, world_size=before).run()
        calls += compute.calls
    for rank in range(after):
        compute = Counted()
        make_pass(tmp_path, compute, rank=rank, world_size=after).run()
        calls += compute.calls
    assert sorted(calls) == sorted(BATCHES)
    check_result(tmp_path)


def test_more_ranks_than_batches(tmp_path):
    computes = [Counted() for _ in range(9)]
    for rank, compute in enumerate(computes):
        make_pass(tmp_path, compute, rank=rank, world_size=9).run()
    assert [len(compute.calls) for compute in computes] == [1] * 7 + [0] * 2
    check_result(tmp_path)


def test_a_leftover_temporary_file_is_ignored(tmp_path):
    (tmp_path / "00000000-000007.4711.tmp").write_bytes(b"PAR1 torn")
    compute = Counted()
    make_pass(tmp_path, compute).run()
    assert compute.calls == BATCHES
    check_result(tmp_path)


def test_a_missing_item_and_one_too_many_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_pass(tmp_path, Counted(stop_at=[10])).run()
    with pytest.raises(AssertionError, match="an item is missing or came twice"):
        collect(tmp_path, NUM_ITEMS)
    assert len(collect(tmp_path, NUM_ITEMS - 1)["score"]) == NUM_ITEMS - 1
    Pass([[9]], tmp_path / "twice", 0, 1, Counted(), lambda done, total: None).run()
    next((tmp_path / "twice").glob("*.parquet")).rename(tmp_path / "99999999-000001.parquet")
    with pytest.raises(AssertionError, match="an item is missing or came twice"):
        collect(tmp_path, NUM_ITEMS)


def test_nothing_to_do(tmp_path):
    Pass([], tmp_path, 0, 1, Counted(), lambda done, total: None).run()
    assert list(tmp_path.iterdir()) == []
    assert collect(tmp_path, 0) == {}


def test_a_column_of_another_length_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="score"):
        make_pass(tmp_path, lambda positions: {"score": np.zeros(len(positions) + 1)}).run()


def test_special_values_come_back_bit_for_bit(tmp_path):
    values = np.array([np.nan, np.inf, -0.0, 1e-45], dtype=np.float32)
    Pass([[2, 0], [3, 1]], tmp_path, 0, 1, lambda p: {"x": values[list(p)]}, lambda done, total: None).run()
    assert collect(tmp_path, 4)["x"].tobytes() == values.tobytes()


def test_progress_counts_what_was_there_before(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_pass(tmp_path, Counted(stop_at=[4])).run()
    seen = []
    make_pass(tmp_path, Counted(), on_progress=lambda done, total: seen.append((done, total))).run()
    assert seen == [(4, 7), (5, 7), (6, 7), (7, 7)]


def test_plan_round_trip(tmp_path):
    write_plan(tmp_path / "batches.json", [(1, 0), [2]], {"tokens": 12, "digit_ids": [5, 6]})
    assert read_plan(tmp_path / "batches.json") == {"batches": [[1, 0], [2]], "tokens": 12, "digit_ids": [5, 6]}
