from functools import partial

import numpy as np
import pytest
from embedded_pools import embedded, has_directions, kept_ids, scored, unit_rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deita_train.selection.baselines import lazy_greedy as lazy_greedy_module
from deita_train.selection.baselines.lazy_greedy import lazy_greedy
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS

checked = partial(settings, derandomize=True, deadline=None)
# Two candidates this close may fall either way in float32.
CLOSE = 1e-4


def at_angles(*degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def first_of_highest(values, ids):
    """The place of the highest value, of equals the one with the lowest id, and its lead over the next."""
    order = sorted(range(len(ids)), key=lambda place: (-values[place], ids[place]))
    lead = values[order[0]] - values[order[1]] if len(order) > 1 else np.inf
    return order[0], lead


def test_k_center_by_hand():
    # From 0 degrees: 180 is opposite, 90 is at right angles to both, 45 is halfway, 10 is what is left.
    rows = scored("abcde", [1, 1, 1, 1, 1]).remove_columns("quality_scores")
    assert kept_ids("k_center", rows, at_angles(0, 10, 90, 180, 45), None) == ["a", "d", "c", "e", "b"]


def test_k_center_starts_with_the_best_score_where_there_are_scores():
    embeddings = at_angles(0, 10, 90, 180, 45)
    # From 45 degrees: 180 is 135 away, then 0 and 90 are both 45 away: a has the lower id.
    assert kept_ids("k_center", scored("abcde", [1, 2, 3, 4, 5]), embeddings, 3) == ["e", "d", "a"]
    assert kept_ids("k_center", scored("abcde", [2, 5, None, 5, 1]), embeddings, 1) == ["b"]
    assert kept_ids("k_center", scored("ba", [None, None]), embeddings[:2], 1) == ["a"]


def test_equally_far_rows_go_by_id():
    rows = scored(["r3", "r10", "r2", "r1"], [1, 1, 1, 1])
    assert kept_ids("k_center", rows, np.eye(4), None) == ["r1", "r10", "r2", "r3"]
    assert kept_ids("facility_location", rows, np.eye(4), None) == ["r1", "r10", "r2", "r3"]


def plain_k_center(unit, ids, scores, budget):
    kept, least_lead = [first_of_highest(scores, ids)[0]], np.inf
    while len(kept) < min(budget, len(ids)):
        distance = [-np.inf if i in kept else min(1 - unit[i] @ unit[k] for k in kept) for i in range(len(ids))]
        best, lead = first_of_highest(distance, ids)
        kept, least_lead = [*kept, best], min(least_lead, lead)
    return [ids[place] for place in kept], least_lead


@checked(max_examples=100)
@given(pool=embedded(), budget=st.integers(1, 30), center=st.booleans())
def test_k_center_agrees_with_brute_force(pool, budget, center):
    ids, embeddings, quality = pool
    assume(has_directions(embeddings, center))
    expected, lead = plain_k_center(unit_rows(embeddings, center), ids, quality, budget)
    assume(lead > CLOSE)
    assert kept_ids("k_center", scored(ids, quality), embeddings, budget, center=center) == expected


def test_k_center_reads_the_pool_in_blocks():
    rng = np.random.default_rng(0)
    num_rows = 2 * ROWS_PER_PASS + 37
    embeddings = rng.standard_normal((num_rows, 5))
    ids = [f"{number:05d}" for number in rng.permutation(num_rows)]
    quality = rng.integers(1, 7, size=num_rows).astype(float)
    expected, lead = plain_k_center(unit_rows(embeddings.astype(np.float32)), ids, quality, 6)
    assert lead > 1e-6
    assert kept_ids("k_center", scored(ids, quality), embeddings, 6) == expected


def test_facility_location_by_hand():
    # Cosines: a-b and b-c 0.6 (53 degrees), a-c below 0 and so 0; d is at right angles to all.
    # b first: 1 + 0.6 + 0.6 = 2.2. Then d gains 1, and a and c gain 0.4 each: a has the lower id.
    angle = np.degrees(np.arccos(0.6))
    embeddings = np.hstack([np.vstack([at_angles(-angle, 0, angle), [[0, 0]]]), [[0], [0], [0], [1]]])
    rows = scored("abcd", [1, 1, 1, 1])
    assert kept_ids("facility_location", rows, embeddings, None, quality_weight=0.0) == ["b", "d", "a", "c"]


def test_the_quality_weight_trades_coverage_for_score():
    # Two near-duplicates pairs; scores 1, 6, 2, 5 are 0, 1, 0.2, 0.8 once scaled.
    embeddings = [(1, 0), (1, 1e-3), (0, 1), (1e-3, 1)]
    rows = scored("abcd", [1, 6, 2, 5])
    # A tenth of the score: the first two cover a pair each, gaining about 2, and differ by their score alone.
    assert kept_ids("facility_location", rows, embeddings, None, quality_weight=0.1) == ["b", "d", "c", "a"]
    # b gains 1 more by its score than a; then c and d gain 0.01 * 2 each, less than what d's score is worth.
    assert kept_ids("facility_location", rows, embeddings, None, quality_weight=0.99) == ["b", "d", "c", "a"]
    rows = scored("abcd", [5, 6, 1, 2])  # scaled 0.8, 1, 0, 0.2
    # After b, a adds no coverage and 0.8 * w; d adds 2 * (1 - w) + 0.2 * w, more while w < 2 / 2.6.
    assert kept_ids("facility_location", rows, embeddings, 2, quality_weight=0.7) == ["b", "d"]
    assert kept_ids("facility_location", rows, embeddings, 2, quality_weight=0.8) == ["b", "a"]


def test_without_a_weight_no_scores_are_read():
    rows = scored("ab", [1, 1]).remove_columns("quality_scores")
    assert kept_ids("facility_location", rows, np.eye(2), 1, quality_weight=0.0) == ["a"]


def plain_facility_location(unit, ids, scores, budget, weight):
    similarity = np.maximum(unit @ unit.T, 0)
    span = max(scores) - min(scores)
    quality = [(score - min(scores)) / span if span else 0.0 for score in scores]
    kept, least_lead, nearest = [], np.inf, np.zeros(len(ids))
    while len(kept) < min(budget, len(ids)):
        gains = [
            -np.inf
            if i in kept
            else (1 - weight) * sum(max(0.0, similarity[i, j] - nearest[j]) for j in range(len(ids)))
            + weight * quality[i]
            for i in range(len(ids))
        ]
        best, lead = first_of_highest(gains, ids)
        kept, least_lead = [*kept, best], min(least_lead, lead)
        nearest = np.maximum(nearest, similarity[best])
    return [ids[place] for place in kept], least_lead


@checked(max_examples=100)
@given(pool=embedded(), budget=st.integers(1, 30), center=st.booleans(), weight=st.sampled_from([0.0, 0.1, 0.5, 0.9]))
def test_facility_location_agrees_with_plain_greedy(pool, budget, center, weight):
    ids, embeddings, quality = pool
    assume(has_directions(embeddings, center))
    expected, lead = plain_facility_location(unit_rows(embeddings, center), ids, quality, budget, weight)
    assume(lead > CLOSE)
    kept = kept_ids("facility_location", scored(ids, quality), embeddings, budget, center=center, quality_weight=weight)
    assert kept == expected


def test_facility_location_reads_the_pool_in_blocks(monkeypatch):
    monkeypatch.setattr(lazy_greedy_module, "_LARGEST_BLOCK", 200)
    rng = np.random.default_rng(1)
    num_rows = ROWS_PER_PASS + 37
    embeddings = rng.standard_normal((num_rows, 4)).astype(np.float32)
    ids = [f"{number:05d}" for number in rng.permutation(num_rows)]
    unit, nearest, expected = unit_rows(embeddings), np.zeros(num_rows), []
    similarity = np.maximum(unit @ unit.T, 0)
    for _ in range(5):
        gains = np.maximum(similarity - nearest, 0).sum(axis=1)
        gains[expected] = -1
        runner_up, best = np.argsort(gains)[-2:]
        assert gains[best] - gains[runner_up] > 1e-3
        expected.append(int(best))
        nearest = np.maximum(nearest, similarity[best])
    kept = kept_ids("facility_location", scored(ids, np.ones(num_rows)), embeddings, 5, quality_weight=0.0)
    assert kept == [ids[place] for place in expected]


def with_copies(num_rows, seed):
    """Ids and vectors of which a third are bitwise copies of others."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num_rows, 8)).astype(np.float32)
    for _ in range(num_rows // 3):
        copy, of = rng.integers(0, num_rows, 2)
        vectors[copy] = vectors[of]
    return [f"{number:04d}" for number in range(num_rows)], vectors


def test_of_two_copies_facility_location_keeps_the_lower_id():
    ids, vectors = with_copies(16, seed=8)
    assert vectors[6].tobytes() == vectors[9].tobytes()
    kept = kept_ids("facility_location", scored(ids, [1] * 16), vectors, 5, quality_weight=0.0)
    assert "0006" in kept and "0009" not in kept


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("facility_location", {"quality_weight": 0.0}),
        ("facility_location", {"quality_weight": 0.4}),
        ("k_center", {}),
        ("kmeans", {"clusters": 4, "seed": 0}),
    ],
)
@pytest.mark.parametrize("center", [False, True])
def test_copies_come_in_the_order_of_their_ids_whatever_the_order_of_the_pool(method, more, center):
    for seed in range(8):
        ids, vectors = with_copies(40, seed)
        budget = None if seed % 2 else 15
        kept = kept_ids(method, scored(ids, [3] * 40), vectors, budget, center=center, **more)
        alike = {}
        for row_id, vector in zip(ids, vectors, strict=True):
            alike.setdefault(vector.tobytes(), []).append(row_id)
        for copies in alike.values():
            there = [row_id for row_id in kept if row_id in copies]
            assert there == copies[: len(there)]
        shuffled = np.random.default_rng(seed).permutation(40)
        again = kept_ids(
            method, scored([ids[row] for row in shuffled], [3] * 40), vectors[shuffled], budget, center=center, **more
        )
        assert again == kept


def test_copies_that_nothing_is_left_to_gain_from_come_by_id():
    # Once one row of each direction is kept, all others gain nothing: 0 each, and not the rounding of a product.
    ids, vectors = with_copies(6, seed=0)
    vectors = np.concatenate([vectors[:3], 2 * vectors[:3]])[[0, 3, 1, 4, 2, 5]]
    for method, more in (("facility_location", {"quality_weight": 0.0}), ("k_center", {})):
        kept = kept_ids(method, scored(ids, [1] * 6), vectors, None, **more)
        assert sorted(kept[:3]) == ["0000", "0002", "0004"]
        assert kept[3:] == ["0001", "0003", "0005"]


@checked(max_examples=150)
@given(
    sets=st.lists(st.frozensets(st.integers(0, 12)), min_size=1, max_size=60),
    budget=st.integers(1, 60),
    first=st.sampled_from([1, 8, 64]),
)
def test_lazy_greedy_is_plain_greedy_with_many_ties(sets, budget, first):
    # Set cover: the gain is the number of elements not covered yet, so that equal gains are exactly equal.
    budget = min(budget, len(sets))
    covered, expected = set(), []
    for _ in range(budget):
        left = [row for row in range(len(sets)) if row not in expected]
        expected.append(max(left, key=lambda row: (len(sets[row] - covered), -row)))
        covered |= sets[expected[-1]]

    now_covered, asked = set(), []

    def gains_of(rows):
        asked.extend(rows.tolist())
        return np.array([len(sets[row] - now_covered) for row in rows], dtype=np.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_greedy_module, "_FIRST_BLOCK", first)
        assert lazy_greedy(len(sets), budget, gains_of, lambda row: now_covered.update(sets[row])) == expected
    assert len(asked) <= len(sets) * budget


def test_lazy_greedy_leaves_out_what_cannot_be_the_best():
    # Gains that never fall: each is computed once, and then the best of the old bounds again in the smallest block.
    asked = []

    def gains_of(rows):
        asked.extend(rows.tolist())
        return 1000.0 - rows

    assert lazy_greedy(1000, 3, gains_of, lambda row: None) == [0, 1, 2]
    assert len(asked) == 1000 + 64 + 64
