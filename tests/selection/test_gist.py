"""GIST against its definition over every subset of small pools: its guarantee, and the best of its walks."""

from itertools import combinations

import numpy as np
from embedded_pools import embedded, has_directions, kept_ids, scored, unit_rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st

EPSILON = 0.1


class Objective:
    """The sum that GIST maximises, for sets of places in the order of the ids."""

    def __init__(self, ids, embeddings, quality, weight, budget):
        order = np.argsort(ids)
        self.ids, self.weight, self.budget = np.array(ids)[order], weight, budget
        spread = quality.max() - quality.min()
        self.quality = ((quality - quality.min()) / (spread or 1))[order]
        unit = unit_rows(embeddings)[order]
        self.distance = np.linalg.norm(unit[:, None] - unit[None], axis=2)

    def least(self, places):
        pairs = [self.distance[pair] for pair in combinations(places, 2)]
        return min(pairs) if pairs else self.distance.max()

    def value(self, places):
        return self.quality[list(places)].sum() / self.budget + self.weight * self.least(places)

    def best(self):
        places = range(len(self.ids))
        sizes = range(1, min(self.budget, len(places)) + 1)
        return max(self.value(subset) for size in sizes for subset in combinations(places, size))

    def walk(self, least):
        """The greedy independent set: down by quality, ties by id, none nearer than `least` to a kept one."""
        kept = []
        for place in sorted(range(len(self.ids)), key=lambda place: (-self.quality[place], place)):
            if len(kept) < self.budget and all(self.distance[place, other] >= least for other in kept):
                kept.append(place)
        return kept

    def algorithm(self):
        """The value that algorithm 1 of the paper comes to."""
        diameter, found = self.distance.max(), [self.walk(0.0)]
        step = EPSILON * diameter / 2
        while 0 < step <= diameter:
            found.append(self.walk(step))
            step *= 1 + EPSILON
        if self.budget > 1 and len(self.ids) > 1:
            found.append(list(np.unravel_index(self.distance.argmax(), self.distance.shape)))
        return max(self.value(kept) for kept in found)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(embedded(max_rows=9), st.integers(1, 5), st.sampled_from([0.01, 0.1, 0.5, 3.0]))
def test_the_guarantee_holds_and_the_best_walk_is_taken(drawn, budget, weight):
    ids, embeddings, quality = drawn
    assume(has_directions(embeddings, center=False))
    objective = Objective(ids, embeddings, quality, weight, budget)
    kept = kept_ids("gist", scored(ids, quality), embeddings, budget, distance_weight=weight)
    places = [int(np.searchsorted(objective.ids, name)) for name in kept]
    assert 1 <= len(set(places)) == len(kept) <= budget
    found = objective.value(places)
    assert found >= (2 / 3 - EPSILON) * objective.best() - 1e-5
    assert found >= objective.algorithm() - 2e-3  # a distance at a threshold is on one side or the other by rounding


def test_by_hand():
    # a and b point almost the same way; a, c and d are at right angles, distance sqrt 2.
    vectors = [(1, 0, 0), (1, 0.01, 0), (0, 1, 0), (0, 0, 1)]
    rows = scored("abcd", [6.0, 5.0, 2.0, 1.0])
    # Qualities 1, 0.8, 0.2, 0. Of two rows: a, b 0.9 + 0.01 w; a, c 0.6 + 1.41 w.
    assert kept_ids("gist", rows, vectors, 2, distance_weight=0.5) == ["a", "c"]
    assert kept_ids("gist", rows, vectors, 2, distance_weight=0.1) == ["a", "b"]  # 0.901 against 0.741
    # Of three: a, b, c 2/3 + 0.01 w is less than a, c, d 0.4 + 1.41 w.
    assert kept_ids("gist", rows, vectors, 3, distance_weight=0.5) == ["a", "c", "d"]
    assert kept_ids("gist", rows, vectors, 1, distance_weight=0.5) == ["a"]


def test_fewer_rows_than_the_budget_where_distance_is_worth_more():
    vectors = [(1, 0), (-1, 0.001), (0.01, 1), (0.02, 1)]
    assert kept_ids("gist", scored("abcd", [4.0, 3.0, 2.0, 1.0]), vectors, 4, distance_weight=5.0) == ["a", "b"]


def test_equal_rows_and_a_single_row():
    assert kept_ids("gist", scored("cab", [1.0, 1.0, 2.0]), [(1, 1)] * 3, 2, distance_weight=0.5) == ["b", "a"]
    assert kept_ids("gist", scored("a", [1.0]), [(1, 1)], 3, distance_weight=0.5) == ["a"]


def test_the_farthest_pair_of_several_blocks():
    vectors = np.abs(np.random.default_rng(0).standard_normal((1100, 3))) + 0.5
    vectors[[7, 1060]] = [(-1, -1, -1), (1, 1, 1)]
    ids = [f"{number:04}" for number in range(1100)]
    assert kept_ids("gist", scored(ids, [1.0] * 1100), vectors, 2, distance_weight=9.0) == ["0007", "1060"]
