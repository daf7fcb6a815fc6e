import random

import pytest
from judged import chain_of, random_scores, ranking_of

from deita_train.evolve.operations import order_of
from deita_train.evolve.ranking import Ranking
from deita_train.evolve.summary import rank_summary

SEEDS = [f"row-{number}" for number in range(200)]


def named(judge, seeds=SEEDS, orders=3, versions=6):
    """The names of the warnings about a judge, which gives scores as they are listed to each of these seeds."""
    rankings = []
    for seed_id in seeds:
        for round in range(orders):
            order = order_of(seed_id, round, versions, 0)
            listed = judge(order)
            scores = [listed[order.index(position)] for position in range(versions)]
            rankings.append(Ranking(seed_id, round, 0, tuple(order), tuple(scores), "ok", ""))
    chains = {seed_id: chain_of(seed_id, ("ok",) * versions) for seed_id in seeds}
    return [warning["name"] for warning in rank_summary(chains, rankings)["warnings"]]


def true_judge(order):
    return [position + 1 for position in order]


def noisy_judge(rng):
    """Right to about one level."""
    return lambda order: [min(6, max(1, round(position + 1 + rng.gauss(0, 1.5)))) for position in order]


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_draws_its_scores_is_found_out(seed):
    rng = random.Random(seed)
    assert named(lambda order: random_scores(rng)) == ["judge_is_guessing", "orders_do_not_agree"]
    assert named(lambda order: random_scores(rng), orders=1) == ["judge_is_guessing"]


@pytest.mark.parametrize("seeds", [1, 3, 200])
def test_a_true_judge_is_not_suspected(seeds):
    assert named(true_judge, SEEDS[:seeds]) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_is_often_wrong_is_not_suspected(seed):
    assert named(noisy_judge(random.Random(seed)), SEEDS[:60]) == []


def test_a_judge_that_goes_by_the_place_is_found_out():
    assert named(lambda order: list(range(1, 7))) == [
        "judge_is_guessing",
        "orders_do_not_agree",
        "scores_follow_the_order",
    ]


def test_a_judge_with_the_scale_upside_down_is_told_apart_from_one_that_guesses():
    assert named(lambda order: [6 - position for position in order]) == ["scores_fall_along_chains"]


def test_a_few_random_seeds_are_not_told_from_chance_either():
    for seed in range(30):
        rng = random.Random(seed)
        assert "judge_is_guessing" in named(lambda order, rng=rng: random_scores(rng), SEEDS[:8], orders=1)


def test_a_warning_tells_the_figures_and_what_to_do():
    rng = random.Random(0)
    chains = {seed_id: chain_of(seed_id) for seed_id in SEEDS}
    (warning,) = rank_summary(chains, [ranking_of(seed_id, random_scores(rng)) for seed_id in SEEDS])["warnings"]
    assert "of 1,000 steps" in warning["text"] and "by chance in 58." in warning["text"]
    assert "do not train a scorer on these labels" in warning["text"]
