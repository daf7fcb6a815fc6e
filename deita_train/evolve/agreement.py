"""Whether a judge knows what it does: do scores rise along chains, do several orders agree, does the place decide.

Each measure comes with its value by chance, scores being shuffled among the versions of a seed, and with the standard
error of that, so that a judge that guesses can be told from one that judges.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, permutations

from deita_train.evolve.ranking import Ranking


@dataclass(frozen=True)
class Monotonicity:
    """How scores move from one good version of a chain to the next.

    Attributes:
        steps: how many such moves there are.
        share_not_falling: of them, those to a score at least as high.
        share_rising: those to a higher score.
        chance_not_falling: the first share if the scores of each chain were shuffled.
        chance_rising: the second one.
        net_rise: the share that rises less the share that falls, 0 by chance.
        net_rise_error: the standard error of `net_rise` under shuffling.
    """

    steps: int
    share_not_falling: float
    share_rising: float
    chance_not_falling: float
    chance_rising: float
    net_rise: float
    net_rise_error: float


@dataclass(frozen=True)
class Agreement:
    """How far several rankings of the same versions, listed in different orders, agree.

    Attributes:
        seeds: with at least two usable rankings that are not all tied.
        kendalls_w: Kendall's W with ties, its mean over the seeds: 1 where all rankings are the same.
        chance: W by chance, 1 over the number of rankings, its mean.
        correlation: the mean rank correlation of two rankings of a seed, (m W - 1) / (m - 1); 0 by chance.
        correlation_error: its standard error by chance.
    """

    seeds: int
    kendalls_w: float
    chance: float
    correlation: float
    correlation_error: float


@dataclass(frozen=True)
class PlaceEffect:
    """How far scores follow the place in the list, which says nothing about a version.

    Attributes:
        rankings: measured.
        correlation: of a score and its place, the mean over rankings; 0 by chance.
        correlation_error: its standard error by chance.
    """

    rankings: int
    correlation: float
    correlation_error: float


def monotonicity(chains: Iterable[Sequence[float]]) -> Monotonicity | None:
    """Measure scores along chains.

    Args:
        chains: the scores of each chain's good versions, in the order of their steps.

    Returns:
        None if no chain has two versions.
    """
    steps = rises = falls = 0
    ties_by_chance = variance = 0.0
    for scores in chains:
        moves = len(scores) - 1
        if moves < 1:
            continue
        steps += moves
        rises += sum(after > before for before, after in pairwise(scores))
        falls += sum(after < before for before, after in pairwise(scores))
        ties_by_chance += moves * _chance_of_tie(tuple(sorted(scores)))
        variance += _net_rise_variance(tuple(sorted(scores)))
    if steps == 0:
        return None
    tie = ties_by_chance / steps
    return Monotonicity(
        steps=steps,
        share_not_falling=1 - falls / steps,
        share_rising=rises / steps,
        # Of two different scores in a random order, each is the first one equally often.
        chance_not_falling=(1 + tie) / 2,
        chance_rising=(1 - tie) / 2,
        net_rise=(rises - falls) / steps,
        net_rise_error=math.sqrt(variance) / steps,
    )


@cache
def _chance_of_tie(scores: tuple[float, ...]) -> float:
    """The probability that two different versions have the same score."""
    equal = sum(scores.count(score) - 1 for score in scores)
    return equal / (len(scores) * (len(scores) - 1))


@cache
def _net_rise_variance(scores: tuple[float, ...]) -> float:
    """The variance of rises less falls over all orders of the scores, exactly.

    Moves that share no version are uncorrelated: turning one of them round changes its sign and nothing else. So what
    counts are the n - 1 moves themselves and the n - 2 pairs of neighbours.
    """
    n = len(scores)
    variance = (n - 1) * (1 - _chance_of_tie(scores))
    if n > 2:
        triples = list(permutations(scores, 3))
        products = sum(_sign(second - first) * _sign(third - second) for first, second, third in triples)
        variance += 2 * (n - 2) * products / len(triples)
    return max(variance, 0.0)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def kendalls_w(rankings: Sequence[Sequence[float]]) -> float | None:
    """Kendall's coefficient of concordance, corrected for ties.

        W = 12 S / (m² (n³ - n) - m T)

    S is the sum of squared deviations of the rank sums from their mean, over n items and m rankings; T is the sum of
    t³ - t over all groups of t equal scores in a ranking. Equal scores share the mean of their ranks.

    Args:
        rankings: m lists of n scores.

    Returns:
        0 to 1; None for fewer than two rankings or items, or if every ranking ties all items.
    """
    m = len(rankings)
    if m < 2 or len(rankings[0]) < 2:
        return None
    n = len(rankings[0])
    ranks = [_mean_ranks(scores) for scores in rankings]
    sums = [math.fsum(of_item) for of_item in zip(*ranks, strict=True)]
    spread = math.fsum((total - m * (n + 1) / 2) ** 2 for total in sums)
    ties = sum(scores.count(score) ** 2 - 1 for scores in map(list, rankings) for score in scores)
    most = m * m * (n**3 - n) - m * ties
    return 12 * spread / most if most > 0 else None


def _mean_ranks(scores: Sequence[float]) -> list[float]:
    """Ranks from 1, equal scores with the mean of theirs."""
    return [
        sum(other < score for other in scores) + (sum(other == score for other in scores) + 1) / 2 for score in scores
    ]


def agreement(by_seed: Iterable[Sequence[Sequence[float]]]) -> Agreement | None:
    """How far the rankings of each seed agree.

    Args:
        by_seed: for each seed the scores of its usable rankings.

    Returns:
        None if no seed has two rankings to compare.
    """
    found: list[tuple[float, int, int]] = []
    for rankings in by_seed:
        w = kendalls_w(rankings)
        if w is not None:
            found.append((w, len(rankings), len(rankings[0])))
    if not found:
        return None
    seeds = len(found)
    # Two independent rankings of n items correlate with a variance of 1 / (n - 1), and m rankings make m (m - 1) / 2
    # uncorrelated pairs.
    variance = math.fsum(2 / (m * (m - 1) * (n - 1)) for _, m, n in found)
    return Agreement(
        seeds=seeds,
        kendalls_w=math.fsum(w for w, _, _ in found) / seeds,
        chance=math.fsum(1 / m for _, m, _ in found) / seeds,
        correlation=math.fsum((m * w - 1) / (m - 1) for w, m, _ in found) / seeds,
        correlation_error=math.sqrt(variance) / seeds,
    )


def place_effect(rankings: Iterable[Ranking]) -> PlaceEffect | None:
    """How far scores follow the place in the list; None if no usable ranking has scores that differ."""
    correlations: list[tuple[float, int]] = []
    for ranking in rankings:
        if ranking.scores is not None and len(set(ranking.scores)) > 1:
            listed = [ranking.scores[position] for position in ranking.order]
            correlations.append((_correlation(range(len(listed)), listed), len(listed)))
    if not correlations:
        return None
    count = len(correlations)
    error = math.sqrt(math.fsum(1 / (n - 1) for _, n in correlations)) / count
    return PlaceEffect(count, math.fsum(value for value, _ in correlations) / count, error)


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    means = [math.fsum(values) / len(values) for values in (first, second)]
    of_first, of_second = (
        [value - mean for value in values] for values, mean in zip((first, second), means, strict=True)
    )
    products = math.fsum(a * b for a, b in zip(of_first, of_second, strict=True))
    squares = math.fsum(a * a for a in of_first) * math.fsum(b * b for b in of_second)
    return products / math.sqrt(squares)
