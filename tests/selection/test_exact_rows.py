import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repr_filter_reference import ids_for, unit64

from deita_train.errors import UserError
from deita_train.selection.repr_filter import exact_rows
from deita_train.selection.repr_filter.exact_rows import ExactRows
from deita_train.selection.repr_filter.process_group import OneProcess
from deita_train.selection.repr_filter.unit_rows import UnitRows


def checked(embeddings, center=False):
    order = np.arange(len(embeddings))
    return ExactRows.check(embeddings, ids_for(len(embeddings)), center=center, order=order, group=OneProcess())


def read(embeddings, center=False):
    rows = checked(embeddings, center)
    rows.read(np.arange(len(embeddings)))
    return rows


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("center", [False, True])
def test_cosines_are_those_of_exactly_rounded_sums(dtype, center):
    embeddings = (np.random.default_rng(0).standard_normal((40, 300)) * 3 + 1).astype(dtype)
    rows, unit = read(embeddings, center), unit64(embeddings, center)
    first, second = np.divmod(np.arange(1600), 40)
    np.testing.assert_allclose(rows.cosines(first, second), (unit @ unit.T).ravel(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(rows.read(first), unit[first], rtol=0, atol=1e-7)


def test_a_cosine_by_hand():
    rows = read(np.array([(3, 4), (4, 3), (-6, -8), (0, 1e-3)], dtype=np.float32))
    assert rows.cosines(np.array([0, 0, 1]), np.array([1, 2, 2])).tolist() == [0.96, -1, -0.96]
    assert rows.cosines(np.array([0, 3]), np.array([3, 3])).tolist() == [0.8, 1]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    dim=st.integers(1, 300),
    at_once=st.integers(1, 40),
    center=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float16]),
)
def test_a_cosine_has_the_same_bits_beside_any_others(seed, dim, at_once, center, dtype):
    rng = np.random.default_rng(seed)
    embeddings = (rng.standard_normal((30, dim)) * 10.0 ** rng.integers(-3, 3, size=(30, 1))).astype(dtype)
    embeddings[::2, 0] += 1
    embeddings[1::2, 0] -= 1
    first, second = rng.integers(30, size=(2, 50))
    rows = read(embeddings, center)
    expected = rows.cosines(first, second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_rows, "PAIRS_AT_ONCE", at_once)
        assert rows.cosines(second, first).tobytes() == expected.tobytes()
    assert np.concatenate([rows.cosines(first[[i]], second[[i]]) for i in range(50)]).tobytes() == expected.tobytes()
    by_columns = ExactRows(np.asfortranarray(embeddings), rows.mean, rows.squares)
    assert by_columns.cosines(first, second).tobytes() == expected.tobytes()
    assert (rows.cosines(first, first) == 1).all()


def test_a_row_must_be_read_before_it_is_compared():
    rows = checked(np.eye(3, dtype=np.float32))
    rows.read(np.array([0]))
    with pytest.raises(AssertionError, match="before it was read"):
        rows.cosines(np.array([0]), np.array([1]))


def directions():
    """Rows that float32 alone cannot judge, or judges wrongly, and what is true of them."""
    return {
        "too large to be squared in float32": ((3e38, 3e38), True),
        "too small to be squared in float32": ((1e-25, 0), False),
        "just long enough": ((1.1e-12, 0), True),
        "just too short": ((0.9e-12, 0), False),
        "subnormal": ((1e-40, 0), False),
        "nan": ((math.nan, 1), False),
        "infinite": ((1, -math.inf), False),
        "zero": ((0, 0), False),
    }


@pytest.mark.parametrize(("row", "has_one"), directions().values(), ids=directions())
@pytest.mark.parametrize("place", [0, 1023, 1024, 2499])
def test_every_row_is_refused_or_not_as_float64_says(row, has_one, place):
    embeddings = np.ones((2500, 2), dtype=np.float32)
    embeddings[place] = row
    if has_one:
        rows = checked(embeddings)
        unit = np.array(row) / np.linalg.norm(row)
        np.testing.assert_allclose(rows.read(np.array([place]))[0], unit, atol=1e-7)
        return
    for check in (checked, lambda rows: UnitRows.measure(rows, ids_for(len(rows)))):
        with pytest.raises(UserError, match=f"1 of 2500 embeddings have no direction.*Rows: 'r{place}'"):
            check(embeddings)


@pytest.mark.parametrize("offset", [0, 1e-13, 1e-9, 1e-6, 1e-4])
@pytest.mark.parametrize("length", [0.1, 100])
def test_a_centred_pool_is_refused_as_by_measure(offset, length):
    embeddings = np.full((1500, 3), length, dtype=np.float32)
    embeddings[::2] *= 1 + offset
    try:
        UnitRows.measure(embeddings, ids_for(1500), center=True)
        refusal = None
    except UserError as error:
        refusal = str(error)
    if refusal is None:
        checked(embeddings, center=True)
    else:
        with pytest.raises(UserError) as raised:
            checked(embeddings, center=True)
        assert str(raised.value) == refusal
