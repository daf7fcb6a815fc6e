import json
import math
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from repr_filter_reference import assert_same, ids_for, permuted, selected, unit64

from deita_train.errors import UserError
from deita_train.scoring.evol_score import evol_score
from deita_train.selection.repr_filter.kept_rows import KEPT_PER_PRODUCT
from deita_train.selection.repr_filter.repr_filter import repr_filter, walk_order
from deita_train.selection.repr_filter.unit_rows import _mean

GOLDEN = ("multi_turn_budget", "multi_turn_exhausts_pool", "single_turn_budget")


def golden_pool(name):
    root = os.environ.get("DEITA_SHARED")
    if not root or not Path(root, "golden", "repr_filter").is_dir():
        pytest.skip("DEITA_SHARED does not name a folder with golden/repr_filter")
    folder = Path(root, "golden", "repr_filter")
    rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
    expected = json.loads((folder / f"{name}.expected.json").read_text())
    embeddings = np.array([row["embedding"] for row in rows], dtype=np.float32)
    scores = np.array([evol_score(row["complexity_scores"], row["quality_scores"]) for row in rows])
    return embeddings, [row["id"] for row in rows], scores, expected


@pytest.mark.parametrize("block_size", [1, 7, 1024])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_cases(name, block_size):
    embeddings, ids, scores, expected = golden_pool(name)
    options = {
        "budget": None if expected["budget"] == -1 else expected["budget"],
        "threshold": expected["threshold"],
        "block_size": block_size,
    }
    want = expected["selected_ids_in_order"]
    assert len(want) > 20
    assert [ids[i] for i in selected(repr_filter(embeddings, ids, scores, **options))] == want
    shuffled = permuted(embeddings, ids, scores, np.random.default_rng(5).permutation(len(ids)), **options)
    assert [ids[i] for i in selected(shuffled)] == want


def test_every_golden_case_is_used():
    root = os.environ.get("DEITA_SHARED")
    if not root:
        pytest.skip("DEITA_SHARED is not set")
    folder = Path(root, "golden", "repr_filter")
    assert sorted(path.name for path in folder.glob("*.parquet")) == [f"{name}.parquet" for name in GOLDEN]


def test_walk_order_is_score_descending_then_plain_string_order():
    ids = ["b", "r10", "r9", "a", "B", "ä"]
    scores = np.array([1.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    assert [ids[i] for i in walk_order(ids, scores)] == ["r10", "r9", "B", "a", "b", "ä"]


def test_walk_order_refuses_rows_without_a_score():
    with pytest.raises(UserError, match=r"2 of 3 rows have no score.*'a', 'c'"):
        walk_order(["a", "b", "c"], np.array([np.nan, 1.0, np.nan]))


def test_repeated_ids_are_our_own_fault():
    with pytest.raises(AssertionError, match="not unique"):
        walk_order(["a", "a"], np.array([1.0, 2.0]))


def test_trace_by_hand():
    # Directions at 0, 10, 80, 90 and 40 degrees, walked in this order; within 30 degrees is too similar. 0 is kept,
    # 10 is blocked by 0, 80 is kept, 90 is blocked by 80, 40 is kept and fills the budget: 200 is not reached.
    degrees = np.array([40, 90, 80, 10, 0, 200.0])
    embeddings = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1).astype(np.float32)
    scores = np.array([6.0, 7.0, 8.0, 9.0, 10.0, 5.0])
    trace = repr_filter(embeddings, ids_for(6), scores, budget=3, threshold=math.cos(math.radians(30)))
    assert trace.selection_rank.tolist() == [2, -1, 1, -1, 0, -1]
    assert trace.blocked_by.tolist() == [-1, 2, -1, 4, -1, -1]
    angles = [40, 10, 80, 10]
    np.testing.assert_allclose(trace.nearest_similarity[:4], np.cos(np.radians(angles)), atol=1e-6)
    assert np.isnan(trace.nearest_similarity[4:]).all()
    assert (trace.selection_rank.dtype, trace.nearest_similarity.dtype, trace.blocked_by.dtype) == (
        np.int64,
        np.float32,
        np.int64,
    )


@pytest.mark.parametrize("block_size", [1, 2, 1024])
@pytest.mark.parametrize(
    ("second", "threshold", "kept"),
    [
        ((3, 4), 0.6, [0, 1]),  # 3 / 5 is the float64 nearest to 0.6: equal, so it stays
        ((3, 4), np.nextafter(0.6, 0), [0]),  # one float64 step below
        ((0.6, 0.8), 0.6, [0]),  # float32(0.6), float32(0.8) have a cosine of 0.600000011
        ((0.6, 0.8), 0.6000001, [0, 1]),
        ((6, 8), 0.6, [0, 1]),
        ((4, 3), 0.8, [0, 1]),
        ((0, 1), 0.0, [0, 1]),
        ((1, 1e-7), 1 - 1e-9, [0]),  # float32 cannot tell either of these from 1
        ((1, 1e-4), 1 - 1e-9, [0, 1]),  # cosine 1 - 5e-9
        ((2, 0), np.nextafter(1.0, 0), [0]),
        ((2, 0), 1.0, [0, 1]),
    ],
)
def test_decisions_at_the_threshold(second, threshold, kept, block_size):
    embeddings = np.array([(1, 0), second], dtype=np.float32)
    for swap in ([0, 1], [1, 0]):
        trace = permuted(
            embeddings,
            ["a", "b"],
            np.array([2.0, 1.0]),
            np.array(swap),
            budget=None,
            threshold=threshold,
            block_size=block_size,
        )
        assert selected(trace) == kept


@pytest.mark.parametrize("block_size", [1, 3, 64, 1024])
def test_many_decisions_within_float32_rounding_of_the_threshold(block_size):
    # Rows at angles around acos(0.9) from the axis, in planes of their own: the axis decides alone, and the true
    # similarities straddle 0.9 by far less than a float32 product resolves.
    rng = np.random.default_rng(3)
    num_rows, dim = 300, 301
    offsets = rng.choice([-1, 1], size=num_rows) * 10.0 ** rng.uniform(-10, -6, size=num_rows)
    embeddings = np.zeros((num_rows + 1, dim), dtype=np.float32)
    embeddings[0, 0] = 1
    embeddings[1:, 0] = 1
    tangent = np.sqrt(1 / (0.9 + offsets) ** 2 - 1)
    embeddings[np.arange(1, num_rows + 1), np.arange(1, num_rows + 1)] = tangent
    exact = unit64(embeddings)[1:, 0]  # after the rounding of the tangent to float32
    assert (np.abs(exact - 0.9) < 2e-6).all()
    assert 50 < (exact > 0.9).sum() < 250
    assert np.abs(exact - 0.9).min() > 1e-14
    scores = np.concatenate([[2.0], rng.random(num_rows)])
    trace = repr_filter(embeddings, ids_for(num_rows + 1), scores, budget=None, threshold=0.9, block_size=block_size)
    assert (trace.blocked_by[1:] >= 0).tolist() == (exact > 0.9).tolist()


@pytest.mark.parametrize("block_size", [1, 2, 3, 1024])
def test_equally_near_blockers_resolve_to_the_earliest_kept(block_size):
    # x, y and z are kept; x+y is as near to x as to y, whatever float32 makes of it; so is y+z.
    embeddings = np.array([(0, 1, 0), (1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 0, 1)], dtype=np.float32)
    scores = np.array([4.0, 2.0, 5.0, 1.0, 3.0])
    trace = repr_filter(embeddings, ids_for(5), scores, budget=None, threshold=0.5, block_size=block_size)
    assert selected(trace) == [2, 0, 4]
    assert trace.blocked_by.tolist() == [-1, 2, -1, 0, -1]


@pytest.mark.parametrize("block_size", [1, 2, 1024])
def test_almost_equally_near_blockers_are_reported_apart_in_float64(block_size):
    # The diagonal is near to a row and to the same row with its entries shuffled and one of them moved by one float32
    # step: float32 products cannot rank these two, float64 ranks them well above its own rounding.
    rng = np.random.default_rng(0)
    blockers = []
    for _ in range(40):
        first = (1 + 0.3 * rng.standard_normal(100)).astype(np.float32)
        second = rng.permutation(first)
        second[0] = np.nextafter(second[0], np.float32(rng.choice([-9, 9])), dtype=np.float32)
        embeddings = np.stack([first, second, np.ones(100, dtype=np.float32)])
        unit = unit64(embeddings)
        towards = unit[:2] @ unit[2]
        assert unit[0] @ unit[1] < 0.94 < towards.min()
        assert 1e-13 < abs(towards[0] - towards[1]) < 1e-7
        trace = repr_filter(
            embeddings, ids_for(3), np.array([3.0, 2, 1]), budget=None, threshold=0.94, block_size=block_size
        )
        assert trace.blocked_by.tolist() == [-1, -1, towards.argmax()]
        blockers.append(trace.blocked_by[2])
    assert set(blockers) == {0, 1}


def test_the_mean_is_bitwise_independent_of_the_row_order():
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((3000, 5)) * 10 ** rng.uniform(-6, 6, size=(3000, 1))).astype(np.float32)
    permutation = rng.permutation(3000)
    assert (_mean(rows, np.arange(3000)) == _mean(rows[permutation], np.argsort(permutation))).all()
    assert (_mean(rows, np.arange(3000)) != _mean(rows, permutation)).any()  # the order does matter
    np.testing.assert_allclose(
        _mean(rows, np.arange(3000)), [math.fsum(column.astype(np.float64)) / 3000 for column in rows.T], rtol=1e-12
    )


def test_more_kept_rows_than_one_product_and_than_the_first_buffer():
    rng = np.random.default_rng(0)
    num_rows = KEPT_PER_PRODUCT + 1500
    embeddings = rng.standard_normal((num_rows, 24)).astype(np.float32)
    near = rng.integers(num_rows - 600, size=600)
    embeddings[-600:] = embeddings[near] * rng.uniform(0.5, 2, size=(600, 1)).astype(np.float32)
    scores = -np.arange(num_rows, dtype=np.float64)
    trace = repr_filter(embeddings, ids_for(num_rows), scores, budget=None, threshold=0.98)
    assert selected(trace) == list(range(num_rows - 600))
    assert trace.blocked_by[-600:].tolist() == near.tolist()
    np.testing.assert_allclose(trace.nearest_similarity[-600:], 1, atol=1e-6)


def test_centring_subtracts_the_mean_of_the_pool():
    # A common offset makes all rows nearly parallel; without it they are the four directions of the axes.
    axes = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)], dtype=np.float32)
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    options = {"budget": None, "threshold": 0.9}
    assert selected(repr_filter(axes + 100, ids_for(4), scores, **options)) == [0]
    trace = repr_filter(axes + 100, ids_for(4), scores, center=True, **options)
    assert selected(trace) == [0, 1, 2, 3]
    np.testing.assert_allclose(trace.nearest_similarity, [np.nan, -1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reads_a_memmap(tmp_path, dtype):
    rng = np.random.default_rng(1)
    embeddings = rng.standard_normal((200, 4)).astype(dtype)
    mapped = np.memmap(tmp_path / "embeddings.bin", dtype=dtype, mode="w+", shape=embeddings.shape)
    mapped[:] = embeddings
    mapped.flush()
    read = np.memmap(tmp_path / "embeddings.bin", dtype=dtype, mode="r", shape=embeddings.shape)
    options = {"budget": None, "threshold": 0.8, "center": True, "block_size": 16}
    scores = rng.random(200)
    trace = repr_filter(read, ids_for(200), scores, **options)
    assert 10 < len(selected(trace)) < 150
    assert_same(trace, repr_filter(embeddings, ids_for(200), scores, **options))


class CountingRows(np.ndarray):
    """An array that records the largest number of rows taken at once."""

    largest = 0

    def __getitem__(self, key):
        taken = super().__getitem__(key)
        if self.ndim == 2:
            CountingRows.largest = max(CountingRows.largest, len(taken))
        return np.asarray(taken)


@pytest.mark.parametrize("center", [False, True])
def test_the_pool_is_read_in_blocks(center):
    embeddings = np.random.default_rng(0).standard_normal((3000, 3)).astype(np.float32).view(CountingRows)
    CountingRows.largest = 0
    repr_filter(embeddings, ids_for(3000), np.zeros(3000), budget=None, threshold=0.5, center=center)
    assert 0 < CountingRows.largest <= 1024


def test_refuses_vectors_without_a_direction():
    embeddings = np.ones((20, 3), dtype=np.float32)
    embeddings[3, 1] = np.nan
    embeddings[5] = 0
    embeddings[7, 2] = -np.inf
    with pytest.raises(UserError, match=r"3 of 20 embeddings.*Rows: 'r3', 'r5', 'r7'\. "):
        # Budget 1 stops before these rows; they are refused all the same.
        repr_filter(embeddings, ids_for(20), -np.arange(20.0), budget=1, threshold=0.9)
    with pytest.raises(UserError, match=r"Rows: 'r3', 'r5', 'r7'\. "):
        repr_filter(embeddings, ids_for(20), -np.arange(20.0), budget=1, threshold=0.9, center=True)


def test_names_at_most_ten_rows():
    embeddings = np.zeros((12, 3), dtype=np.float16)
    with pytest.raises(UserError, match=r"12 of 12 embeddings.*'r0', .*'r9', \.\.\.\. "):
        repr_filter(embeddings, ids_for(12), np.zeros(12), budget=None, threshold=0.9)


@pytest.mark.parametrize("value", [1.0, 0.1, 123.456])
def test_refuses_a_row_that_centring_makes_zero(value):
    embeddings = np.full((1001, 7), value, dtype=np.float32)
    with pytest.raises(UserError, match=r"1001 of 1001 embeddings.*mean of the pool is subtracted"):
        repr_filter(embeddings, ids_for(1001), np.zeros(1001), budget=None, threshold=0.9, center=True)
    assert len(selected(repr_filter(embeddings, ids_for(1001), np.zeros(1001), budget=None, threshold=0.9))) == 1


@pytest.mark.parametrize("threshold", [-1.0, -2.0, math.nan])
def test_refuses_a_threshold_that_nothing_can_pass(threshold):
    with pytest.raises(UserError, match="greater than -1"):
        repr_filter(np.ones((2, 2), dtype=np.float32), ["a", "b"], np.zeros(2), budget=1, threshold=threshold)


@pytest.mark.parametrize("budget", [0, -3])
def test_refuses_a_budget_below_one(budget):
    with pytest.raises(UserError, match="at least 1"):
        repr_filter(np.ones((2, 2), dtype=np.float32), ["a", "b"], np.zeros(2), budget=budget, threshold=0.9)


@pytest.mark.parametrize("center", [False, True])
def test_an_empty_pool_gives_an_empty_trace(center):
    trace = repr_filter(np.empty((0, 4), dtype=np.float32), [], np.empty(0), budget=None, threshold=0.9, center=center)
    assert trace.selection_rank.shape == trace.nearest_similarity.shape == trace.blocked_by.shape == (0,)


def test_the_callers_matmul_precision_is_restored():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        repr_filter(np.eye(3, dtype=np.float32), ids_for(3), np.zeros(3), budget=None, threshold=0.9)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
