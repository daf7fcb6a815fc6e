import pytest

from deita_train.scoring.evol_score import evol_score, over_turns


def test_evol_score_sums_the_products_over_turns():
    assert evol_score([2.0, 3.0], [5.0, 1.5]) == 14.5  # 2 * 5 + 3 * 1.5


def test_a_turn_with_a_null_in_either_score_is_left_out():
    assert evol_score([2.0, None, 4.0, 3.0], [5.0, 6.0, None, 1.0]) == 13.0  # 2 * 5 + 3 * 1


@pytest.mark.parametrize(("complexity", "quality"), [([], []), ([None], [2.0]), ([1.0, None], [None, 2.0])])
def test_no_scored_turn_gives_none(complexity, quality):
    assert evol_score(complexity, quality) is None


def test_a_score_of_zero_is_a_score():
    assert evol_score([0.0], [3.0]) == 0.0
    assert over_turns([0.0]) == 0.0


def test_lengths_must_match():
    with pytest.raises(AssertionError, match="2 complexity scores for 1 quality"):
        evol_score([1.0, 2.0], [1.0])


def test_over_turns_leaves_nulls_out():
    assert over_turns([1.5, None, 2.0]) == 3.5
    assert over_turns([None, None]) is None
    assert over_turns([]) is None


def test_the_order_of_turns_does_not_break_a_tie():
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert over_turns([0.1, 0.2, 0.3]) == over_turns([0.3, 0.2, 0.1])
    assert evol_score([0.1, 0.2, 0.3], [1.0, 1.0, 1.0]) == evol_score([0.3, 0.2, 0.1], [1.0, 1.0, 1.0])


def test_a_mean_is_over_the_scored_turns():
    assert evol_score([2.0, None, 4.0, 3.0], [5.0, 6.0, None, 1.0], "mean") == 6.5  # (2 * 5 + 3 * 1) / 2
    assert over_turns([1.5, None, 2.5], "mean") == 2.0
    assert over_turns([None], "mean") is None


def test_only_turns_that_count():
    assert evol_score([2.0, 3.0, 4.0], [5.0, 1.0, 2.0], counted=[True, False, True]) == 18.0  # 2 * 5 + 4 * 2
    assert evol_score([2.0, 3.0, 4.0], [5.0, 1.0, 2.0], "mean", [True, False, True]) == 9.0
    assert over_turns([2.0, None, 4.0], counted=[False, True, True]) == 4.0
    assert over_turns([2.0, 4.0], counted=[False, False]) is None
    with pytest.raises(AssertionError, match="2 scores for 1 turns"):
        over_turns([2.0, 4.0], counted=[True])
