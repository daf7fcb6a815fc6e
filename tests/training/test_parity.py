import numpy as np
import pytest

from deita_train.training.parity import public_split


def test_six_thousand_rows_train_on_5880_as_the_public_code_says():
    trained, held_out = public_split(6000)
    assert (len(trained), len(held_out)) == (5880, 120)
    assert sorted([*trained, *held_out]) == list(range(6000))


def test_the_places_by_hand():
    # NumPy's permutation of ten with seed 0 is 2 8 4 9 1 6 7 3 0 5, of which the last is held out.
    assert public_split(10) == ([0, 1, 2, 3, 4, 6, 7, 8, 9], [5])


@pytest.mark.parametrize("num_rows", [1, 2, 49, 50, 101])
def test_the_global_generator_gives_the_same(num_rows):
    np.random.seed(0)
    order = np.random.permutation(num_rows)
    trained, held_out = public_split(num_rows)
    assert set(trained) == set(order[: int(num_rows * 0.98)].tolist())
    assert len(held_out) == num_rows - len(trained) >= 1
