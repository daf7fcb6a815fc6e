import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repr_filter_reference import ids_for
from test_repr_filter_properties import brute_force, pools, usable

from deita_train.errors import UserError
from deita_train.selection.repr_filter import sufficient_threshold as module
from deita_train.selection.repr_filter.sufficient_threshold import sufficient_threshold

checked = partial(settings, derandomize=True, deadline=None, max_examples=40)


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def find(embeddings, budget, above=-1.0, **options):
    scores = -np.arange(len(embeddings), dtype=np.float64)  # walked in the order given
    return sufficient_threshold(embeddings, ids_for(len(embeddings)), scores, budget=budget, above=above, **options)


def test_by_hand():
    # Walked at 0, 10, 90, 95 degrees. With the first, the fourth needs cos 95 = -0.08716 (the third cos 90 = 0). All
    # but the fourth need cos 10 = 0.98481, all four cos 5 = 0.99619. The first alone is kept whatever the threshold.
    circle = on_circle(0, 10, 90, 95)
    assert find(circle, 1).threshold == -0.999
    two, three, four = (find(circle, budget) for budget in (2, 3, 4))
    assert (two.threshold, three.threshold, four.threshold) == (-0.087, 0.985, 0.997)
    assert (two.num_seen, three.num_seen, four.num_seen) == (4, 3, 4)


def test_nothing_but_no_filter_suffices():
    found = find(np.ones((3, 2), dtype=np.float32), 3, above=0.9)
    assert (found.threshold, found.num_seen) == (1.0, 3)


def test_a_budget_above_the_pool():
    with pytest.raises(UserError, match="budget is 4 and the pool has only 3 rows"):
        find(on_circle(0, 10, 20), 4)


def test_it_walks_no_more_often_than_stated(monkeypatch):
    walks = []
    walk = module.repr_filter
    monkeypatch.setattr(module, "repr_filter", lambda *args, **options: walks.append(options) or walk(*args, **options))
    circle = on_circle(*np.random.default_rng(0).uniform(0, 360, 50))
    for above, most in ((0.9, 7), (-1.0, 11), (0.5, 9)):
        walks.clear()
        found = find(circle, 40, above=above)
        assert found.num_walks == len(walks) <= most
        assert all(options["threshold"] > above and options["budget"] == 40 for options in walks)


def test_a_threshold_further_below_may_do_too():
    # b is 40 degrees from a, and c and d are 30 degrees from b on two sides: at 0.8 b is kept and rejects both.
    # At 0.7 b is rejected itself, and c and d are kept.
    a, b = (1, 0, 0), (math.cos(math.radians(40)), math.sin(math.radians(40)), 0)
    c, d = (tuple(math.cos(math.radians(30)) * np.array(b) + 0.5 * np.array(side)) for side in ((0, 0, 1), (0, 0, -1)))
    rows = np.array([a, b, c, d], dtype=np.float32)
    assert max(np.dot(a, c), np.dot(c, d)) < 0.7
    # Above 0.8 the next that suffices lets c pass beside b: cos 30 = 0.86603.
    assert find(rows, 3, above=0.8).threshold == 0.867
    assert find(rows, 3).threshold < 0.7


@checked()
@given(pool=pools(max_rows=20), above=st.sampled_from([-1.0, 0.0, 0.5, 0.9]), wanted=st.integers(1, 20))
def test_it_reaches_the_budget_and_a_thousandth_below_does_not(pool, above, wanted):
    embeddings, ids, scores = pool
    if not usable(embeddings):
        return
    budget = min(wanted, len(ids))
    found = sufficient_threshold(embeddings, ids, scores, budget=budget, above=above)

    def num_kept(step):
        rank, _, _, gap = brute_force(embeddings, ids, scores, budget, step / 1000)
        return int((rank >= 0).sum()) if gap > 1e-9 else None

    step = round(found.threshold * 1000)
    assert found.threshold == step / 1000 and above < found.threshold <= 1
    assert step == 1000 or num_kept(step) in (budget, None)
    if step - 1 > above * 1000:
        kept = num_kept(step - 1)
        assert kept is None or kept < budget


def test_centring_is_passed_on():
    # Less the mean, 10 degrees apart is opposite.
    assert find(on_circle(0, 10), 2, center=True).threshold == -0.999
    assert find(on_circle(0, 10), 2).threshold == 0.985
