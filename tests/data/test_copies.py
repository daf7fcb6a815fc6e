"""Copies among rows, against a comparison of all pairs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assistant, system, user

from deita_train.data.copies import _PERMUTATIONS, EXACT, NEAR, Copy, _rows_per_band, find_copies, jaccard, shingles


def row(*texts):
    return {"messages": [(user, assistant)[place % 2](text) for place, text in enumerate(texts)]}


def copies_of(rows, ids=None, **how):
    ids = ids or [f"r{place}" for place in range(len(rows))]
    found = find_copies(ids, rows.__getitem__, **{"exact": True, "near": None, **how})
    return {ids[place]: (copy.reason, ids[copy.of], copy.similarity) for place, copy in found.items()}


def test_case_white_space_and_forms_of_a_character_do_not_count():
    rows = [
        row("Hello  World", "\ufb01ne"),
        row("hello world\n", "FINE"),
        row("hello world", "fine."),
        row("hello", "world fine"),
    ]
    assert copies_of(rows) == {"r1": ("exact_copy", "r0", 1.0)}


def test_roles_system_messages_and_tools_count():
    same = row("a", "b")
    rows = [
        same,
        {"messages": [system("s"), *same["messages"]]},
        {"messages": [user("a"), user("b")]},
        {**same, "tools": [{"name": "f"}]},
        {**same, "tools": [{"name": "f"}]},
        {**same, "tools": None},
    ]
    assert copies_of(rows) == {"r4": ("exact_copy", "r3", 1.0), "r5": ("exact_copy", "r0", 1.0)}


def test_the_lowest_id_is_kept_in_whatever_order():
    rows = [row("x", "y")] * 3
    assert copies_of(rows, ["c", "a", "b"]) == {"b": (EXACT, "a", 1.0), "c": (EXACT, "a", 1.0)}


def test_sequences_of_five_words_by_hand():
    assert shingles(row("One, two three", "four FIVE six!")) == {"one two three four five", "two three four five six"}
    assert shingles(row("one", "two")) == {"one two"}
    assert shingles(row("?", "!")) == {"? !"}
    assert shingles(row("天気は", "良い")) == {"天 気 は 良 い"}
    # 6 of 11 sequences in common: of the 8 + 9 sequences 6 are in both.
    first, second = frozenset(range(8)), frozenset(range(2, 11))
    assert jaccard(first, second) == 6 / 11


def test_a_near_copy_says_what_it_repeats_and_how_similar_it_is():
    words = [f"w{number}" for number in range(40)]
    rows = [
        row(" ".join(words), "yes"),
        row(" ".join([*words[:-1], "other"]), "yes"),  # 37 of 37 + 37 - 35 sequences: the last two differ
        row(" ".join(reversed(words)), "yes"),
    ]
    own = 41 - 4
    expected = (own - 2) / (own + 2)
    assert copies_of(rows, near=0.8) == {"r1": (NEAR, "r0", pytest.approx(expected))}
    assert copies_of(rows, near=expected + 0.01) == {}
    assert copies_of(rows, near=expected) == {"r1": (NEAR, "r0", expected)}


def test_an_exact_copy_of_a_near_copy_repeats_the_row_that_is_kept():
    words = [f"w{number}" for number in range(40)]
    near = row(" ".join([*words[:-1], "other"]), "yes")
    found = copies_of([row(" ".join(words), "yes"), near, near], near=0.8)
    assert found["r1"][:2] == (NEAR, "r0") and found["r2"] == (EXACT, "r0", 1.0)


def test_without_exact_an_equal_text_is_a_near_copy():
    assert copies_of([row("a", "b"), row("A", "b")], exact=False, near=1.0) == {"r1": (NEAR, "r0", 1.0)}
    assert copies_of([row("a", "b"), row("a", "c")], exact=False, near=1.0) == {}


def by_all_pairs(rows, ids, near):
    """The walk in the order of ids that compares each row with every kept one."""
    kept, found = [], {}
    for place in sorted(range(len(rows)), key=ids.__getitem__):
        similarities = [(-jaccard(shingles(rows[place]), shingles(rows[other])), ids[other]) for other in kept]
        best = min(similarities, default=(0.0, ""))
        if -best[0] >= near:
            found[ids[place]] = (NEAR, best[1], -best[0])
        else:
            kept.append(place)
    return found


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), near=st.sampled_from([0.3, 0.5, 0.8, 0.95, 1.0]))
def test_a_comparison_of_all_pairs_finds_the_same(seed, near):
    rng = random.Random(seed)
    bases = [[f"{base}-{rng.randrange(60)}" for _ in range(60)] for base in range(3)]
    rows = []
    for _ in range(14):
        words = list(rng.choice(bases))
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            words[rng.randrange(60)] = f"x{rng.randrange(1000)}"
        rows.append(row(" ".join(words[:30]), " ".join(words[30:])))
    ids = [f"row {number}" for number in rng.sample(range(100), 14)]
    assert copies_of(rows, ids, exact=False, near=near) == by_all_pairs(rows, ids, near)
    order = rng.sample(range(14), 14)
    shuffled = copies_of([rows[place] for place in order], [ids[place] for place in order], exact=False, near=near)
    assert shuffled == by_all_pairs(rows, ids, near)


@pytest.mark.parametrize("near", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0])
def test_less_than_one_pair_in_a_thousand_at_the_threshold_is_missed(near):
    rows = _rows_per_band(near)
    missed = (1 - near**rows) ** (_PERMUTATIONS // rows)
    assert missed < 1e-3 or rows == 1
    more = rows + 1
    assert more > _PERMUTATIONS // 2 or (1 - near**more) ** (_PERMUTATIONS // more) >= 1e-3


def test_progress_is_told():
    told = []
    find_copies(["a", "b"], [row("a", "b"), row("c", "d")].__getitem__, exact=True, near=0.9, on_row=told.append)
    assert told == [1, 2]
    assert Copy(EXACT, 0, 1.0) == (EXACT, 0, 1.0)
