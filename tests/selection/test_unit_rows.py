import math

import numpy as np
import pytest
import torch
from repr_filter_reference import ids_for, unit64

from deita_train.errors import UserError
from deita_train.selection.repr_filter.unit_rows import UnitRows, full_float32_products, name_rows, undirected_rows


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("center", [False, True])
def test_unit_rows(dtype, center):
    rows = (np.random.default_rng(0).standard_normal((1030, 5)) * 3 + 1).astype(dtype)
    pool = UnitRows.measure(rows, ids_for(1030), center=center)
    places = np.array([1029, 0, 7])
    np.testing.assert_allclose(pool.unit_rows(places, np.float64), unit64(rows, center)[places], rtol=0, atol=1e-12)
    assert pool.unit_rows(places, np.float32).dtype == np.float32
    assert len(pool) == 1030


def test_the_mean_is_summed_in_the_order_of_the_ids():
    rows = np.random.default_rng(1).standard_normal((2000, 3)).astype(np.float32)
    ids = [f"{i:04}" for i in range(2000)]
    permutation = np.random.default_rng(2).permutation(2000)
    moved = UnitRows.measure(rows[permutation], [ids[i] for i in permutation], center=True)
    assert (moved.mean == UnitRows.measure(rows, ids, center=True).mean).all()
    np.testing.assert_allclose(moved.mean, [math.fsum(c.astype(np.float64)) / 2000 for c in rows.T], atol=1e-14)


@pytest.mark.parametrize("bad", [(math.nan, 1), (math.inf, 1), (0, 0)])
def test_a_row_without_a_direction_is_named(bad):
    rows = np.array([(1, 2), bad, (2, 1)], dtype=np.float32)
    with pytest.raises(UserError, match=r"1 of 3 embeddings have no direction.*Rows: 'b'"):
        UnitRows.measure(rows, ["a", "b", "c"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_row_is_refused_at_the_speed_of_the_memory_as_it_is_in_float64(dtype):
    largest, least = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    values = [0, -0.0, 1, -1, 1e-5, -1e-5, 1e-4, 1e-6, largest, -largest, least, -least, math.nan, math.inf, -math.inf]
    rows = np.array([(one, other, 0) for one in values for other in values]).astype(dtype)
    norms = np.sqrt(np.square(rows.astype(np.float64)).sum(axis=1))
    expected = ~(np.isfinite(norms) & (norms >= 1e-12))
    assert 0 < expected.sum() < len(rows)
    np.testing.assert_array_equal(undirected_rows(rows, None, range(len(rows))), expected)
    np.testing.assert_array_equal(undirected_rows(rows, None, range(7, 100)), expected[7:100])


def test_centred_copies_have_no_direction():
    with pytest.raises(UserError, match=r"2 of 2 .*once the mean of the pool is subtracted"):
        UnitRows.measure(np.full((2, 3), 0.1, dtype=np.float32), ["a", "b"], center=True)


def test_at_most_ten_rows_are_named():
    assert name_rows(ids_for(12), np.arange(2)) == "'r0', 'r1'"
    assert name_rows(ids_for(12), np.arange(11)).endswith("'r9', ...")


def test_the_precision_of_products_is_given_back():
    torch.set_float32_matmul_precision("medium")
    try:
        with full_float32_products():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
