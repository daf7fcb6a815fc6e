"""How many rows are drawn, and which: by seed and id, whatever their order."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assistant, user

from deita_train.data.drawing import Draw, draw_sizes, drawn_from_sources, drawn_rows
from deita_train.data.pool import PoolSource, build_pool
from deita_train.data.preferences import PreferenceSource, build_preferences
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError


def sizes(draws, counts):
    return draw_sizes({name: way and Draw(1, **way) for name, way in draws.items()}, counts)


def test_rows_and_fractions():
    counts = {"a": 10, "b": 5, "c": 7, "d": 3}
    draws = {"a": {"rows": 4}, "b": {"fraction": 0.5}, "c": None, "d": {"fraction": 0.1}}
    assert sizes({**draws, "d": {"rows": 3}}, counts) == {"a": 4, "b": 3, "d": 3}  # 2.5 is rounded up
    with pytest.raises(UserError, match=r"fraction: 0.1: of the 3 usable rows of source 'd' this is none; state more"):
        sizes(draws, counts)
    with pytest.raises(UserError, match=r"rows: 11: source 'a' has 10 usable rows; state at most 10"):
        sizes({"a": {"rows": 11}}, counts)


@pytest.mark.parametrize(
    ("weights", "counts", "expected"),
    [
        # 3 : 1 of 30 and 20 rows: 30 and 10.
        ({"a": 3, "b": 1}, {"a": 30, "b": 20}, {"a": 30, "b": 10}),
        # 3 : 1 of 31 and 10: 30 and 10; the other source is the one that ends.
        ({"a": 3, "b": 1}, {"a": 31, "b": 10}, {"a": 30, "b": 10}),
        # 0.1 : 0.3 is 1 : 3 exactly, although 0.3 / 0.1 is not 3.
        ({"a": 0.1, "b": 0.3}, {"a": 10, "b": 30}, {"a": 10, "b": 30}),
        # 1 : 1 : 2 of 5, 9 and 7 rows: 3.5, 3.5 and 7.
        ({"a": 1, "b": 1, "c": 2}, {"a": 5, "b": 9, "c": 7}, {"a": 3, "b": 3, "c": 7}),
    ],
)
def test_weights(weights, counts, expected):
    assert sizes({name: {"weight": weight} for name, weight in weights.items()}, counts) == expected


def test_weights_leave_other_sources_alone():
    draws = {"a": {"weight": 1}, "b": {"weight": 1}, "c": {"rows": 2}, "d": None}
    assert sizes(draws, {"a": 4, "b": 6, "c": 3, "d": 1}) == {"a": 4, "b": 4, "c": 2}
    with pytest.raises(UserError, match=r"weight: 0\.01: of the 6 usable rows of source 'b' this is none"):
        sizes({"a": {"weight": 1}, "b": {"weight": 0.01}}, {"a": 4, "b": 6})


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=1, max_size=3))
def test_weights_give_the_largest_pool_that_repeats_no_row(sources):
    """By brute force: the largest scale, in steps of a row of each source, that no source falls short of."""
    scales = {Fraction(rows, weight) for (weight, count) in sources for rows in range(count + 1)}
    scale = max(s for s in scales if all(s * weight <= count for weight, count in sources))
    expected = {str(place): int(scale * weight) for place, (weight, _) in enumerate(sources)}
    draws = {str(place): {"weight": weight} for place, (weight, _) in enumerate(sources)}
    counts = {str(place): count for place, (_, count) in enumerate(sources)}
    if all(expected.values()):
        assert sizes(draws, counts) == expected


@given(st.sets(st.text(max_size=3), min_size=1, max_size=12), st.integers(0, 5), st.data())
def test_which_rows_are_drawn_depends_on_ids_and_seed_alone(ids, seed, data):
    ids = sorted(ids)
    shuffled = data.draw(st.permutations(ids))
    size = data.draw(st.integers(0, len(ids)))
    one, other = drawn_rows(ids, size, seed), drawn_rows(shuffled, size, seed)
    drawn = {name for name, taken in zip(ids, one, strict=True) if taken}
    assert drawn == {name for name, taken in zip(shuffled, other, strict=True) if taken}
    assert len(drawn) == size
    assert drawn >= {name for name, taken in zip(ids, drawn_rows(ids, max(size - 1, 0), seed), strict=True) if taken}


def test_a_draw_is_the_generator_s_permutation_of_the_ids_in_order():
    ids = ["b", "c", "a", "e", "d"]
    first = [sorted(ids)[place] for place in np.random.default_rng(3).permutation(5)[:2]]
    assert [name for name, taken in zip(ids, drawn_rows(ids, 2, 3), strict=True) if taken] == [
        name for name in ids if name in first
    ]


def test_every_row_is_drawn_about_equally_often():
    counts = sum(drawn_rows([str(row) for row in range(10)], 3, seed).astype(int) for seed in range(600))
    assert counts.sum() == 1800 and counts.min() > 130 and counts.max() < 230


def test_several_sources_are_one_mask():
    ids = {"a": ["x", "y"], "b": ["z"], "c": ["u", "v", "w"]}
    draws = {"a": Draw(1, rows=1), "b": None, "c": Draw(2, rows=2)}
    mask = drawn_from_sources(draws, ids)
    assert mask.tolist() == [*drawn_rows(ids["a"], 1, 1), True, *drawn_rows(ids["c"], 2, 2)]
    assert drawn_from_sources(dict.fromkeys(ids), ids) is None


def chat(name, turns=1):
    return {"id": name, "messages": [user("q"), assistant("a")] * turns}


def source(name, rows, **options):
    numbered = [SourceRow(index, f"{name}:{index + 1}", row) for index, row in enumerate(rows)]
    return PoolSource(name, numbered, **options)


def test_a_pool_has_what_is_drawn_in_the_order_of_its_sources():
    first = [chat(f"a{number}", 1 + number % 2) for number in range(8)]
    unusable = {"id": "bad", "messages": [user("q")]}
    draw = Draw(5, rows=3)
    pool, report = build_pool([source("a", [unusable, *first], draw=draw), source("b", [chat("b0"), chat("b1")])])
    kept = [
        row["id"] for row, taken in zip(first, drawn_rows([row["id"] for row in first], 3, 5), strict=True) if taken
    ]
    assert pool["id"] == [*kept, "b0", "b1"]
    assert (report.rows_in, report.rows_out) == (11, 5)
    assert report.drops == {"no_assistant_turn": 1, "not_sampled": 5}
    turns = {row["id"]: len(row["messages"]) // 2 for row in first}
    assert report.mean_user_turns == (sum(turns[name] for name in kept) + 2) / 5


def test_a_draw_stays_whatever_the_order_of_the_file_and_the_other_sources():
    rows = [chat(str(number)) for number in range(9)]
    draw = Draw(0, fraction=0.4)
    alone, _ = build_pool([source("a", rows, draw=draw)])
    others = [source("b", [chat("3"), chat("x")]), source("a", rows[::-1], draw=draw)]
    merged, _ = build_pool(others)
    of_a = [
        name.removeprefix("a:") for name, origin in zip(merged["id"], merged["source"], strict=True) if origin == "a"
    ]
    assert sorted(of_a) == sorted(alone["id"]) and len(of_a) == 4


def test_preferences_draw_by_the_same_rule():
    rows = [{"id": str(n), "prompt": "q", "chosen": "a", "rejected": "b"} for n in range(7)]
    pairs, _ = build_preferences(PreferenceSource("p", source("p", rows).rows), 3, 11)
    ids = [row["id"] for row in rows]
    assert pairs["id"] == [name for name, taken in zip(ids, drawn_rows(ids, 3, 11), strict=True) if taken]


def test_one_way_of_drawing():
    for ways in product([None, 1], repeat=3):
        stated = dict(zip(("rows", "fraction", "weight"), ways, strict=True))
        if sum(way is not None for way in ways) == 1:
            assert Draw(1, **stated).seed == 1
        else:
            with pytest.raises(AssertionError):
                Draw(1, **stated)
