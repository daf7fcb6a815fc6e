from functools import partial

import datasets
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from select_by import select_by

checked = partial(settings, derandomize=True, deadline=None)
TAGS = st.lists(st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=4), min_size=1, max_size=20)


def kept_ids(method, tags, budget=None, scores=None, ids=None, **settings):
    columns = {"id": ids or [f"r{i:02d}" for i in range(len(tags))], "tags": tags}
    if scores is not None:
        columns["quality_scores"] = [[float(score)] for score in scores]
    rows = datasets.Dataset.from_dict(columns)
    trace = select_by(method, rows, budget, column="tags", score="quality", **settings)
    kept = np.flatnonzero(trace.selection_rank >= 0)
    return [rows["id"][int(place)] for place in kept[np.argsort(trace.selection_rank[kept])]]


# By number of tags, ties by id: c (3), a and d (2), b and e (1).
# First round: c is all new; a has nothing new; d has w; b and e have nothing new.
# Second round: a is new, b is new, e has nothing new. Third round: e.
INSTAG = {"a": ["x", "y"], "b": ["w"], "c": ["z", "y", "x"], "d": ["y", "w"], "e": ["x"]}


@pytest.mark.parametrize("budget", [None, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("joined", [False, True])
def test_instag_by_hand(budget, joined):
    tags = [", ".join(of_row) if joined else of_row for of_row in INSTAG.values()]
    assert kept_ids("instag", tags, budget, ids=list(INSTAG)) == ["c", "d", "a", "b", "e"][:budget]


def algorithm_1(ids, tags, budget):
    """The paper's own words: rows by number of tags; a round keeps what adds a tag; rounds until the budget."""
    left = sorted(range(len(ids)), key=lambda i: (-len(set(tags[i])), ids[i]))
    kept = []
    while left and len(kept) < budget:
        covered = set()
        for i in list(left):
            if len(covered | set(tags[i])) > len(covered):
                kept.append(i)
                covered |= set(tags[i])
                left.remove(i)
                if len(kept) == budget:
                    break
    return [ids[i] for i in kept]


@checked(max_examples=100)
@given(tags=TAGS, budget=st.integers(1, 25), seed=st.integers(0, 99))
def test_instag_agrees_with_the_paper_s_loop(tags, budget, seed):
    ids = [f"r{number}" for number in np.random.default_rng(seed).permutation(len(tags))]
    assert kept_ids("instag", tags, budget, ids=ids) == algorithm_1(ids, tags, budget)


def test_mig_by_hand():
    # Slope of (x + 1e-6)^0.8 at 0: 0.8 * 10^1.2 = 12.68; at 2: 0.696.
    # a gains 2 * 12.68. Then b, with x again, gains 1.9 * 0.696, and c, with y, 12.68.
    assert kept_ids("mig", [["x"], ["x"], ["y"]], scores=[2, 1.9, 1]) == ["r00", "r02", "r01"]
    # d gives 1.1 to either label: 2.2 * 12.68 comes first. At 1.1 the slope is 0.785: a 1.57, b 1.49, c 0.785. After a,
    # x has 3.1 and slope 0.638: b 1.21, still more than c.
    tags = [["x"], ["x"], ["y"], ["y", "x"]]
    assert kept_ids("mig", tags, scores=[2, 1.9, 1, 2.2]) == ["r03", "r00", "r01", "r02"]


def test_joined_labels_share_what_they_get():
    # r00 has p, r01 has q, and five rows of little score join the two: similarity 5 / 6.
    tags, scores = [["p"], ["q"], ["s"], *[["p", "q"]] * 5], [6, 5, 4, 1, 1, 1, 1, 1]
    # Apart, q is as new as s after r00: 5 before 4. Joined, q has got its part of r00 and s comes first.
    assert kept_ids("mig", tags, 3, scores=scores, label_similarity=0.9) == ["r00", "r01", "r02"]
    assert kept_ids("mig", tags, 3, scores=scores, label_similarity=0.8) == ["r00", "r02", "r01"]


def test_equal_gains_go_by_id():
    assert kept_ids("mig", [["x"], ["y"], ["z"]], scores=[1, 1, 1], ids=["b", "c", "a"]) == ["a", "b", "c"]


def plain_mig(ids, tags, scores, budget, lowest):
    """The definition with dense matrices: every gain at every step."""
    labels = sorted({tag for of_row in tags for tag in of_row})
    has = np.array([[label in of_row for label in labels] for of_row in tags], dtype=float)
    similarity = np.zeros((len(labels), len(labels)))
    for j in range(len(labels)):
        for k in range(len(labels)):
            cosine = has[:, j] @ has[:, k] / np.sqrt(has[:, j].sum() * has[:, k].sum())
            similarity[j, k] = cosine if cosine >= lowest or j == k else 0.0
    amounts = (has * np.array(scores)[:, None] / has.sum(axis=1, keepdims=True)) @ (similarity / similarity.sum(axis=0))
    kept, received, least_lead = [], np.zeros(len(labels)), np.inf
    while len(kept) < min(budget, len(ids)):
        gains = amounts @ (0.8 * (received + 1e-6) ** -0.2)
        order = sorted((i for i in range(len(ids)) if i not in kept), key=lambda i: (-gains[i], ids[i]))
        if len(order) > 1:
            least_lead = min(least_lead, gains[order[0]] - gains[order[1]])
        kept.append(order[0])
        received += amounts[order[0]]
    return [ids[i] for i in kept], least_lead


@checked(max_examples=60)
@given(
    tags=TAGS, budget=st.integers(1, 25), seed=st.integers(0, 2**32 - 1), lowest=st.sampled_from([0.3, 0.5, 0.85, 1.0])
)
def test_mig_agrees_with_dense_greedy(tags, budget, seed, lowest):
    rng = np.random.default_rng(seed)
    ids, scores = (
        [f"r{number}" for number in rng.permutation(len(tags))],
        rng.uniform(1, 6, size=len(tags)).astype(np.float32),
    )
    expected, lead = plain_mig(ids, tags, scores.astype(np.float64), budget, lowest)
    assume(lead > 1e-6)
    assert kept_ids("mig", tags, budget, scores=scores, ids=ids, label_similarity=lowest) == expected
