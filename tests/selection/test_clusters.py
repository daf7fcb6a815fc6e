from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from embedded_pools import embedded, has_directions, kept_ids, scored, unit_rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2

from deita_train.errors import UserError
from deita_train.selection.baselines.clusters import lloyd, quotas
from deita_train.selection.repr_filter.unit_rows import ROWS_PER_PASS, UnitRows

checked = partial(settings, derandomize=True, deadline=None)
# Six rows around x, three around y, one at z; ids and qualities as they come.
GROUPS = np.repeat(np.eye(3), [6, 3, 1], axis=0) + 1e-3 * np.random.default_rng(0).standard_normal((10, 3))
IDS = ["x1", "x2", "x3", "x4", "x5", "x6", "y1", "y2", "y3", "z1"]
QUALITY = [1, 5, 3, 5, 2, 4, 2, 2, 6, 1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (3, ["x2", "y3", "x4"]),  # shares 1.8, 0.9, 0.3: whole rows 1, 0, 0, and two by the remainders 0.9 and 0.8
        (7, ["y3", "x2", "x4", "x6", "x3", "y1", "z1"]),  # 4.2, 2.1, 0.7
        (10, ["y3", "x2", "x4", "x6", "x3", "x5", "y1", "y2", "x1", "z1"]),
        (None, ["y3", "x2", "x4", "x6", "x3", "x5", "y1", "y2", "x1", "z1"]),
    ],
)
def test_kmeans_by_hand(seed, budget, kept):
    found = kept_ids("kmeans", scored(IDS, QUALITY), GROUPS, budget, clusters=3, seed=seed)
    # Ranks go by score over all kept rows, ties by id.
    score = dict(zip(IDS, QUALITY, strict=True))
    assert found == sorted(kept, key=lambda name: (-score[name], name))


def test_one_cluster_is_the_ranking_by_score():
    assert kept_ids("kmeans", scored(IDS, QUALITY), GROUPS, 4, clusters=1, seed=0) == ["y3", "x2", "x4", "x6"]


def test_the_seed_decides_where_the_clusters_begin():
    rng = np.random.default_rng(3)
    embeddings, rows = rng.standard_normal((40, 5)), scored([f"{i:02d}" for i in range(40)], rng.random(40))
    found = {tuple(kept_ids("kmeans", rows, embeddings, 10, clusters=6, seed=seed)) for seed in range(12)}
    assert len(found) > 3
    again = {tuple(kept_ids("kmeans", rows, embeddings, 10, clusters=6, seed=seed)) for seed in range(12)}
    assert again == found


@pytest.mark.parametrize(("num_rows", "clusters"), [(1, 1), (2, 1), (8, 2), (50, 5), (200, 10)])
def test_the_default_is_the_square_root_of_half_the_rows(monkeypatch, num_rows, clusters):
    asked = []

    def one_start(pool, order, alike, number, rng):
        asked.append(number)
        return [0]

    monkeypatch.setattr("deita_train.selection.baselines.clusters._spread_out", one_start)
    rows = scored([str(i) for i in range(num_rows)], np.ones(num_rows))
    kept_ids("kmeans", rows, np.random.default_rng(0).standard_normal((num_rows, 3)), 1, seed=0)
    assert asked == [clusters]


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(UserError, match="clusters is 11, and there are only 10 rows"):
        kept_ids("kmeans", scored(IDS, QUALITY), GROUPS, 4, clusters=11, seed=0)


def test_fewer_different_rows_than_clusters():
    embeddings = [(3, 0), (1, 0), (2, 0), (0, 1)]
    assert kept_ids("kmeans", scored("cabd", [1, 1, 1, 2]), embeddings, None, clusters=4, seed=0) == [
        "d",
        "a",
        "b",
        "c",
    ]


@checked(max_examples=60)
@given(pool=embedded(max_rows=60), number=st.integers(1, 6), center=st.booleans())
def test_lloyd_agrees_with_scipy(pool, number, center):
    ids, embeddings, _ = pool
    assume(len(ids) >= number and has_directions(embeddings, center))
    unit = unit_rows(embeddings, center)
    start = unit[:number]
    centres, expected = kmeans2(unit, start, iter=100, minit="matrix", missing="warn")
    distances = np.sort(((unit[:, None] - centres[None]) ** 2).sum(axis=2), axis=1)
    assume(number == 1 or (distances[:, 1] - distances[:, 0]).min() > 1e-4)
    found = lloyd(UnitRows.measure(embeddings, ids, center=center), np.arange(len(ids)), start.astype(np.float32))
    assert found.tolist() == expected.tolist()


def test_lloyd_reads_the_pool_in_blocks():
    rng = np.random.default_rng(5)
    num_rows = 2 * ROWS_PER_PASS + 11
    embeddings = (
        3 * rng.standard_normal((4, 6))[rng.integers(4, size=num_rows)] + rng.standard_normal((num_rows, 6))
    ).astype(np.float32)
    order = rng.permutation(num_rows)
    unit = unit_rows(embeddings)
    _, expected = kmeans2(unit, unit[:4], iter=100, minit="matrix")
    found = lloyd(UnitRows.measure(embeddings, [str(i) for i in range(num_rows)]), order, unit[:4].astype(np.float32))
    assert (found != expected[order]).sum() <= 2  # a row on a border may fall either way in float32


def test_a_centre_without_rows_stays_where_it_is():
    pool = UnitRows.measure(np.eye(3, dtype=np.float32)[[0, 0, 1]], ["a", "b", "c"])
    centres = np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)], dtype=np.float32)
    assert lloyd(pool, np.arange(3), centres).tolist() == [0, 0, 2]


@checked(max_examples=200)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any), data=st.data())
def test_quotas_by_largest_remainders(sizes, data):
    budget = data.draw(st.integers(1, sum(sizes)))
    shares = [Fraction(size * budget, sum(sizes)) for size in sizes]
    expected = [int(share) for share in shares]
    for place in sorted(range(len(sizes)), key=lambda i: (expected[i] - shares[i], i))[: budget - sum(expected)]:
        expected[place] += 1
    found = quotas(np.array(sizes), budget)
    assert found.tolist() == expected
    assert found.sum() == budget and (found <= sizes).all()
