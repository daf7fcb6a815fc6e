import shutil
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_train.inference.batches import Batches, BatchPlan
from deita_train.inference.shards import (
    batch_table,
    check_shards,
    collect,
    remove_leftovers,
    split_batches,
    write_shard,
)

PLAN = BatchPlan(Batches.of([[6, 1], [0], [5, 3, 2], [4]]), np.array([3, 5, 4, 4, 2, 6, 9]), 12)
COLUMNS = ("score", "vector")


def results(positions):
    items = np.array(positions)
    return {"score": (items / 7).astype(np.float32), "vector": np.stack([items, -items], axis=1).astype(np.float32)}


def table(number, positions=None, parts=1):
    positions = PLAN.batches[number] if positions is None else positions
    return batch_table(number, positions, results(positions), parts)


@pytest.fixture
def folder(tmp_path):
    """A shard with the batches 2 and 0, and one with 3."""
    write_shard(tmp_path, [table(2), table(0, parts=3)])
    write_shard(tmp_path, [table(3)])
    return tmp_path


def test_whole_batches_are_found(folder):
    assert check_shards(folder, PLAN, COLUMNS) == ({0, 2, 3}, {})
    assert [path.name for path in sorted(folder.iterdir())] == ["00000002-000002.parquet", "00000003-000001.parquet"]


def test_there_is_no_shard_of_nothing(tmp_path):
    write_shard(tmp_path / "shards", [])
    assert not (tmp_path / "shards").exists()
    assert check_shards(tmp_path / "shards", PLAN, COLUMNS) == (set(), {})
    assert collect(tmp_path / "shards", 0) == {}
    assert split_batches(tmp_path / "shards") == []


def test_items_come_back_in_item_order(folder):
    write_shard(folder, [table(1)])
    columns = collect(folder, 7)
    assert sorted(columns) == sorted(COLUMNS)
    np.testing.assert_array_equal(columns["score"], (np.arange(7) / 7).astype(np.float32))
    np.testing.assert_array_equal(columns["vector"], np.stack([np.arange(7), -np.arange(7)], axis=1))
    assert columns["vector"].dtype == np.float32


def test_a_missing_item_and_one_too_many_are_refused(folder):
    with pytest.raises(AssertionError, match="an item is missing or came twice"):
        collect(folder, 7)
    with pytest.raises(AssertionError, match="an item is missing or came twice"):
        collect(folder, 6)
    shutil.copyfile(folder / "00000003-000001.parquet", folder / "99999999-000001.parquet")
    with pytest.raises(AssertionError, match="an item is missing or came twice"):
        collect(folder, 7)


def test_special_values_come_back_bit_for_bit(tmp_path):
    values = np.array([np.nan, np.inf, -0.0, 1e-45], dtype=np.float32)
    write_shard(tmp_path, [batch_table(0, [2, 0], {"x": values[[2, 0]]}, 1)])
    write_shard(tmp_path, [batch_table(1, [3, 1], {"x": values[[3, 1]]}, 1)])
    assert collect(tmp_path, 4)["x"].tobytes() == values.tobytes()


def test_a_column_of_another_length_is_refused():
    with pytest.raises(AssertionError, match="score"):
        batch_table(0, [6, 1], {"score": np.zeros(3)}, 1)


def test_split_batches_are_known_by_their_numbers(folder):
    write_shard(folder, [table(1, parts=2)])
    assert split_batches(folder) == [0, 1]


def test_a_shard_cut_at_any_byte_is_not_trusted(folder):
    path = folder / "00000002-000002.parquet"
    whole = path.read_bytes()
    places = {0, 1, 3, 4, 5, len(whole) - 1, *range(2, len(whole), 37), *range(len(whole) - 20, len(whole))}
    assert len(places) > 60
    for place in places:
        path.write_bytes(whole[:place])
        done, distrusted = check_shards(folder, PLAN, COLUMNS)
        assert (done, list(distrusted)) == ({3}, [path]), place
        assert distrusted[path].startswith("it cannot be read (")


def test_a_shard_with_bytes_overwritten_is_not_trusted(folder):
    """The end is intact, as after a crash that left a hole: the footer is read, and only the pages tell."""
    path = folder / "00000002-000002.parquet"
    whole = path.read_bytes()
    score = (np.array([5], dtype=np.float32) / 7).astype(np.float32).tobytes()
    place = whole.index(score)
    path.write_bytes(whole[:place] + b"\0" * 4 + whole[place + 4 :])
    assert pq.read_table(path)["score"][0].as_py() == 0.0, "without its checksum the page is read as if it were right"
    done, distrusted = check_shards(folder, PLAN, COLUMNS)
    assert (done, list(distrusted)) == ({3}, [path])


def test_other_columns_are_not_trusted(folder):
    done, distrusted = check_shards(folder, PLAN, ("score",))
    assert (done, len(distrusted)) == (set(), 2)
    assert set(distrusted.values()) == {"its columns are batch, item, parts, score, vector"}
    pq.write_table(pa.table({"a": [1]}), folder / "00000001-000001.parquet")
    assert check_shards(folder, PLAN, COLUMNS)[1] == {folder / "00000001-000001.parquet": "its columns are a"}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([table(1), table(2, [5, 3])], "a batch in it is not what was planned"),
        ([table(2, [5, 2, 3])], "a batch in it is not what was planned"),
        ([table(0, [6, 1, 4])], "a batch in it is not what was planned"),
        ([table(1), table(1)], "a batch in it is not what was planned"),
        ([table(4, [6])], "its batches are not the plan's"),
        ([table(-1, [6])], "its batches are not the plan's"),
        ([table(0).slice(0, 0)], "its batches are not the plan's"),
    ],
)
def test_a_batch_that_is_not_the_plans_is_not_trusted(tmp_path, wrong, reason):
    path = tmp_path / "00000000-000001.parquet"
    pq.write_table(pa.concat_tables(wrong), path)
    assert check_shards(tmp_path, PLAN, COLUMNS) == (set(), {path: reason})


def test_a_batch_in_two_shards_is_trusted_once(folder):
    write_shard(folder, [table(3), table(1)])
    second = folder / "00000003-000002.parquet"
    assert check_shards(folder, PLAN, COLUMNS) == ({0, 2, 3}, {second: "batch 3 is in another shard too"})


def test_leftovers_are_removed(folder):
    torn, whole = folder / "00000002-000002.parquet", folder / "00000003-000001.parquet"
    (folder / "00000001-000001.4711.tmp").write_bytes(b"PAR1 torn")
    remove_leftovers(folder, [torn])
    assert list(folder.iterdir()) == [whole]


def test_a_matrix_is_joined_in_a_file_with_less_than_two_shards_in_memory(tmp_path):
    rows, width, num_shards = 2048, 1024, 4
    order = np.random.default_rng(2).permutation(rows * num_shards)
    values = np.random.default_rng(3).normal(size=(len(order), width)).astype(np.float32)
    for number in range(num_shards):
        positions = order[number * rows : (number + 1) * rows]
        write_shard(tmp_path, [batch_table(number, positions.tolist(), {"vector": values[positions]}, 1)])
    pool = pa.default_memory_pool()
    proxy = pa.proxy_memory_pool(pool)
    pa.set_memory_pool(proxy)
    tracemalloc.start()
    try:
        joined = collect(tmp_path, len(order))["vector"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(pool)
    np.testing.assert_array_equal(joined, values)
    assert isinstance(joined, np.memmap) and joined.filename == tmp_path / "vector.matrix"
    shard = values.nbytes / num_shards
    assert joined.nbytes // 64 < proxy.max_memory() and proxy.max_memory() + peak < 2 * shard


def test_a_part_looks_at_shards_that_may_hold_its_batches(tmp_path):
    from deita_train.inference import shards

    plan = BatchPlan(Batches.of([[0], [1], [2], [3]]), np.ones(4, np.int32), 10)
    values = {"score": np.zeros(1, np.float32)}
    for number, part in enumerate(("1-of-2", "2-of-2", "1-of-3", "")):
        write_shard(tmp_path, [batch_table(number, [number], values, 1)], part)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00000000-000001.1-of-2.parquet",
        "00000001-000001.2-of-2.parquet",
        "00000002-000001.1-of-3.parquet",
        "00000003-000001.parquet",
    ]
    assert check_shards(tmp_path, plan, ["score"], {0, 1, 2}, "1-of-2") == ({0, 2}, {}), "2-of-2 is passed over"
    assert check_shards(tmp_path, plan, ["score"], {3}, "1-of-2") == ({3}, {})
    assert check_shards(tmp_path, plan, ["score"]) == ({0, 1, 2, 3}, {})
    # One that cannot be read belongs to the part whose batch its name begins with.
    broken = tmp_path / "00000002-000001.1-of-3.parquet"
    broken.write_bytes(b"PAR1")
    assert check_shards(tmp_path, plan, ["score"], {3}, "1-of-2") == ({3}, {})
    done, distrusted = check_shards(tmp_path, plan, ["score"], {2, 3}, "1-of-2")
    assert done == {3} and [*distrusted] == [broken]
    assert shards._is_of_sibling(tmp_path / "1-1.10-of-2.parquet", "1-of-2")
    assert not shards._is_of_sibling(tmp_path / "1-1.parquet", "")
