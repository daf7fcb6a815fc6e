import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from select_by import select_by


def ids_of(method, values, budget=None, ids=None, **options):
    rows = datasets.Dataset.from_dict({"id": ids or [f"r{i}" for i in range(len(values))], "value": values})
    rank = select_by(method, rows, budget, column="value", **options).selection_rank
    return [
        rows["id"][int(i)] for i in np.argsort(np.where(rank < 0, len(rank), rank), kind="stable")[: (rank >= 0).sum()]
    ]


# b has 4.5; C and c have 3, and "C" comes before "c"; a has 1.
DESCENDING = ["b", "C", "c", "a"]


@pytest.mark.parametrize(
    ("method", "options", "kept"),
    [
        ("direct_score", {}, DESCENDING),
        ("perplexity", {}, DESCENDING),
        ("perplexity", {"order": "highest"}, DESCENDING),
        ("perplexity", {"order": "lowest"}, ["a", "C", "c", "b"]),
    ],
)
@pytest.mark.parametrize("budget", [None, 1, 3])
def test_by_hand(method, options, kept, budget):
    assert ids_of(method, [1.0, 4.5, 3.0, 3.0], budget, ["a", "b", "c", "C"], **options) == kept[:budget]


def test_ifd_goes_from_just_below_one_down():
    assert ids_of("ifd", [0.2, 0.999, 0.7, 0.7]) == ["r1", "r2", "r3", "r0"]


def test_whole_numbers_are_ranked_too():
    assert ids_of("direct_score", [3, 5, 4], 2) == ["r1", "r2"]


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75]) | st.floats(-1e6, 0.99), min_size=1, max_size=20),
    budget=st.none() | st.integers(1, 25),
    lowest=st.booleans(),
)
def test_agrees_with_sorting(values, budget, lowest):
    order = "lowest" if lowest else "highest"
    ids = [f"r{i}" for i in range(len(values))]
    descending = [name for _, name in sorted(zip([-value for value in values], ids, strict=True))]
    ascending = [name for _, name in sorted(zip(values, ids, strict=True))]
    assert ids_of("perplexity", values, budget, order=order) == (ascending if lowest else descending)[:budget]
    assert ids_of("direct_score", values, budget) == descending[:budget]
    assert ids_of("ifd", values, budget) == descending[:budget]
