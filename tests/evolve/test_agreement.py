import random
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import ranking_of
from scipy import stats

from deita_train.evolve.agreement import agreement, kendalls_w, monotonicity, place_effect
from deita_train.evolve.ranking import Ranking

SCORES = st.integers(1, 6)


def test_monotonicity_by_hand():
    # Moves: 1-2 rises, 2-2 stays, 2-1 falls; 3-5 rises. The third chain has no move.
    found = monotonicity([[1, 2, 2, 1], [3, 5], [4]])
    assert (found.steps, found.share_not_falling, found.share_rising, found.net_rise) == (4, 0.75, 0.5, 0.25)
    # Two versions of the first chain tie with probability 4 / 12, of the second never: (3 / 3 + 0) / 4 by chance.
    assert found.chance_not_falling == pytest.approx((1 + 0.25) / 2)
    assert found.chance_rising == pytest.approx((1 - 0.25) / 2)


def test_nothing_to_measure():
    assert monotonicity([]) is None
    assert monotonicity([[3], []]) is None
    assert agreement([[[1, 2]], [[3, 3], [4, 4]]]) is None
    assert place_effect([ranking_of("a", [2, 2]), ranking_of("b", [1, 2], status="no_scores")]) is None


@pytest.mark.parametrize("scores", [[1, 2], [1, 1], [1, 2, 3], [1, 1, 2], [4, 4, 4, 4], [1, 2, 2, 6], [1, 1, 2, 2, 3]])
def test_chance_is_the_mean_over_all_orders(scores):
    """Mean and standard deviation over every order, written out."""
    shuffled = [list(pairwise(order)) for order in permutations(scores)]
    moves = len(scores) - 1
    not_falling = [sum(b >= a for a, b in order) / moves for order in shuffled]
    rising = [sum(b > a for a, b in order) / moves for order in shuffled]
    net = [sum((b > a) - (b < a) for a, b in order) / moves for order in shuffled]
    found = monotonicity([scores])
    assert found.chance_not_falling == pytest.approx(np.mean(not_falling))
    assert found.chance_rising == pytest.approx(np.mean(rising))
    assert np.mean(net) == pytest.approx(0, abs=1e-12)
    assert found.net_rise_error == pytest.approx(np.std(net), abs=1e-9)


def test_chance_of_two_chains_is_that_of_all_their_orders_together():
    chains = [[1, 2, 2], [3, 1]]
    net = []
    for first, second in product(permutations(chains[0]), permutations(chains[1])):
        moves = [*pairwise(first), *pairwise(second)]
        net.append(sum((b > a) - (b < a) for a, b in moves) / 3)
    assert monotonicity(chains).net_rise_error == pytest.approx(np.std(net))


def test_six_versions_in_a_drawn_order():
    # Of n different scores the number of falls has the variance (n + 1) / 12; net rise is 1 - 2 falls / 5.
    assert monotonicity([[1, 2, 3, 4, 5, 6]]).net_rise_error == pytest.approx(2 / 5 * (7 / 12) ** 0.5)


def w_by_definition(rankings):
    """The share of the greatest possible spread of rank sums, from the ranks of scipy."""
    ranks = np.array([stats.rankdata(scores) for scores in rankings])
    spread = ((ranks.sum(axis=0) - ranks.sum() / ranks.shape[1]) ** 2).sum()
    own = ((ranks - ranks.mean(axis=1, keepdims=True)) ** 2).sum()
    return spread / (len(rankings) * own) if own else None


def test_kendalls_w_by_hand():
    assert kendalls_w([[1, 2, 3], [2, 4, 6], [1, 3, 4]]) == 1
    assert kendalls_w([[1, 2, 3], [3, 2, 1]]) == 0
    # Rank sums 4, 5, 9 about 6: 4 + 1 + 9 = 14, and 12 * 14 / (9 * 24) = 7 / 9.
    assert kendalls_w([[1, 2, 3], [2, 1, 3], [1, 2, 3]]) == pytest.approx(7 / 9)
    # With a tie: ranks 1.5 1.5 3 and 1 2 3, sums 2.5 3.5 6 about 4: 2.25 + 0.25 + 4 = 6.5; 78 / (4 * 24 - 2 * 6).
    assert kendalls_w([[2, 2, 5], [1, 2, 3]]) == pytest.approx(78 / 84)


def test_kendalls_w_is_friedmans_test():
    rng = random.Random(4)
    for _ in range(20):
        rankings = [[rng.randint(1, 6) for _ in range(5)] for _ in range(4)]
        statistic, _ = stats.friedmanchisquare(*np.array(rankings).T)
        assert kendalls_w(rankings) == pytest.approx(statistic / (4 * 4))


@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(SCORES, min_size=n, max_size=n), min_size=2, max_size=4)))
def test_kendalls_w_is_a_share_of_the_greatest_spread(rankings):
    w, expected = kendalls_w(rankings), w_by_definition(rankings)
    assert w is None if expected is None else w == pytest.approx(expected, abs=1e-12) and -1e-12 <= w <= 1 + 1e-12


@pytest.mark.parametrize("rankings", [[], [[1, 2]], [[3], [4]], [[2, 2], [5, 5]]])
def test_kendalls_w_of_nothing_to_compare(rankings):
    assert kendalls_w(rankings) is None


@pytest.mark.parametrize("pair", [([1, 2, 3], [1, 2, 3]), ([1, 1, 2, 5], [3, 1, 2, 2])])
def test_agreement_by_chance_is_one_over_the_number_of_rankings(pair):
    """Over every order of the second ranking."""
    first, second = pair
    every = [kendalls_w([first, list(order)]) for order in permutations(second)]
    assert np.mean(every) == pytest.approx(1 / 2)


def test_agreement_of_seeds():
    # W = 1 of three rankings of three, W = 0 of two of three: correlations 1 and -1.
    found = agreement([[[1, 2, 3], [1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]], [[1, 2, 3]]])
    assert (found.seeds, found.kendalls_w, found.correlation) == (2, 0.5, 0.0)
    assert found.chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    # 2 / (3 * 2 * 2) and 2 / (2 * 1 * 2).
    assert found.correlation_error == pytest.approx((1 / 6 + 1 / 2) ** 0.5 / 2)


@pytest.mark.parametrize("scores", [[1, 2, 3, 4], [1, 2, 2, 5]])
def test_the_error_of_agreement_is_that_over_all_orders(scores):
    # Two rankings, of which one is in every order: the correlation is 2 W - 1.
    every = [2 * kendalls_w([scores, list(order)]) - 1 for order in permutations(scores)]
    assert agreement([[scores, scores]]).correlation_error == pytest.approx(np.std(every))


def placed(scores_as_listed, order):
    scores = [0] * len(order)
    for score, position in zip(scores_as_listed, order, strict=True):
        scores[position] = score
    return Ranking("a", 0, 0, tuple(order), tuple(scores), "ok", "")


def test_place_effect_by_hand():
    rising, falling = placed([1, 2, 6], [2, 0, 1]), placed([5, 3, 1], [1, 0, 2])
    # Places 1 2 3 against 1 2 6: products 5 over the root of 2 * 14.
    assert place_effect([rising]).correlation == pytest.approx(5 / 28**0.5)
    assert place_effect([falling]).correlation == pytest.approx(-1)
    found = place_effect([rising, falling, placed([2, 2, 2], [0, 1, 2])])
    assert found.rankings == 2
    assert found.correlation == pytest.approx((5 / 28**0.5 - 1) / 2)
    assert found.correlation_error == pytest.approx((1 / 2 + 1 / 2) ** 0.5 / 2)
