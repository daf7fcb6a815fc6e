"""Differences from random rows and the longest answers: intervals by hand and by scipy, and the sentence on zero."""

import datasets
import numpy as np
import pytest
from scipy import stats

from deita_train.errors import UserError
from deita_train.selection.measures.compared import as_json, from_json
from deita_train.selection.measures.comparison import compare
from deita_train.selection.measures.comparison_tables import composition_table, shown_tables
from deita_train.selection.measures.differences import difference_table, seed_table

# One row of each length: 10, 20 ... 60 characters, scores 1 to 6, tokens twice the score.
IDS = list("abcdef")
POOL = datasets.Dataset.from_dict(
    {"id": IDS, "messages": [[{"role": "assistant", "content": "x" * 10 * n}] for n in range(1, 7)]}
)
SCORES = np.arange(1.0, 7.0)
RANDOM = {"random seed 1": ["a", "b"], "random seed 2": ["c", "e"], "random seed 3": ["b", "d"]}  # 1.5, 4, 3
SEEDS = {"random": list(RANDOM)}


def compared(seeds=SEEDS, selections=None, **more):
    selections = {"deita": ["f", "e"], **RANDOM, "longest_response": ["f", "e"]} if selections is None else selections
    found = compare(POOL, None, selections, scores=SCORES, tokens=(2 * SCORES).astype(np.int64), seeds=seeds, **more)
    return from_json(as_json(found))


def column(table, title):
    place = table.titles.index(title)
    return {row[0]: row[place] for row in table.rows}


def gaps(table, measure="mean score"):
    """Difference and interval by pair."""
    return {(method, against): cells for method, against, title, *cells in table.rows if title == measure}


def test_tokens_stand_beside_rows_and_limits_stay_in_characters():
    found = compared(max_length=30)
    table = composition_table(found)
    assert list(table.titles[1:5]) == ["rows", "total tokens", "mean score", "mean characters"]
    assert column(table, "total tokens") == {
        "whole pool": "42", "deita": "22", "random seed 1": "6", "random seed 2": "16", "random seed 3": "12",
        "longest_response": "22",
    }  # fmt: skip
    assert found.unit == "characters" and "text beyond 30 characters" in table.titles


def test_means_over_seeds_by_hand():
    # 1.5, 4 and 3: mean 17/6, deviation sqrt(19/12), t(0.975, 2) = 4.302653.
    half = 4.302653 * (19 / 12) ** 0.5 / 3**0.5
    rows = [row for row in seed_table(compared()).rows if row[2] == "mean score"]
    assert rows == [
        (
            "random",
            "3",
            "mean score",
            "2.833",
            f"{17 / 6 - half:.3f} to {17 / 6 + half:.3f}".replace("-", "\N{MINUS SIGN}"),
        )
    ]


def test_differences_from_a_method_that_draws_nothing():
    table = difference_table(compared())
    half = 4.302653 * (19 / 12) ** 0.5 / 3**0.5
    gap = 5.5 - 17 / 6
    found = gaps(table)
    low = f"{gap - half:.3f}".replace("-", "\N{MINUS SIGN}")
    assert found["deita", "random"] == ["2.667", f"{low} to {gap + half:.3f}"]
    assert found["deita", "longest_response"] == ["0.000", "\N{EN DASH}"]
    assert list(found) == [
        ("deita", "random"), ("longest_response", "random"), ("deita", "longest_response"),
    ]  # fmt: skip
    assert "these seeds do not tell the two apart: deita and random in mean score" in table.note
    assert "and longest_response in" not in table.note  # equal selections without spread have no interval


def test_means_of_columns_by_hand():
    # d has no rating: random seed 3, b and d, is 0.4; the others 0.3, and 0.55 of c and e.
    pool = POOL.add_column("rating", [0.2, 0.4, 0.5, None, 0.6, 1.0])
    selections = {"deita": ["f", "e"], **RANDOM, "longest_response": ["d"]}
    found = from_json(as_json(compare(pool, None, selections, mean_of=["rating"], seeds=SEEDS)))
    assert column(composition_table(found), "mean rating") == {
        "whole pool": "0.5400", "deita": "0.8000", "random seed 1": "0.3000", "random seed 2": "0.5500",
        "random seed 3": "0.4000", "longest_response": "\N{EN DASH}",
    }  # fmt: skip
    # Mean 1.25/3, deviation sqrt(0.0475/3) of 0.3, 0.55 and 0.4.
    half, gap = 4.302653 * (0.095 / 6 / 3) ** 0.5, 0.8 - 1.25 / 3
    assert gaps(difference_table(found), "mean rating") == {
        ("deita", "random"): [f"{gap:.4f}", f"{gap - half:.4f} to {gap + half:.4f}"]
    }
    with pytest.raises(UserError, match="no column 'ratting'"):
        compare(pool, None, selections, mean_of=["ratting"])


def test_two_methods_that_draw_are_compared_by_welch():
    kmeans = {"kmeans": ["f", "e"], "kmeans seed 2": ["f", "d"]}  # 5.5 and 5
    found = compared({**SEEDS, "kmeans": list(kmeans)}, {**kmeans, **RANDOM})
    test = stats.ttest_ind([5.5, 5.0], [1.5, 4.0, 3.0], equal_var=False).confidence_interval(0.95)
    parts = " ".join(gaps(difference_table(found))["kmeans", "random"]).replace("\N{MINUS SIGN}", "-").split()
    numbers = [float(part) for part in parts if part != "to"]
    assert numbers == pytest.approx([5.25 - 17 / 6, test.low, test.high], abs=6e-4)


def test_an_interval_without_zero_and_a_single_seed():
    near = {"random seed 1": ["a", "b"], "random seed 2": ["b", "a"], "random seed 3": ["a", "c"]}
    table = difference_table(compared(selections={"deita": ["f", "e"], **near}))
    assert table.note.endswith("No interval holds zero.")
    one = compared({"random": ["random seed 1"]}, {"deita": ["f", "e"], "random seed 1": ["a", "b"]})
    assert gaps(difference_table(one)) == {("deita", "random"): ["4.000", "\N{EN DASH}"]}
    assert "A single seed of random rows leaves their spread unknown" in difference_table(one).note


def test_without_seeds_there_are_no_such_tables():
    found = compared({}, {"deita": ["f"], "random": ["a"]})
    assert seed_table(found) is None and difference_table(found) is None
    assert len(shown_tables(found)) == 2
    assert "seeds" not in as_json(found)


def test_without_a_reference_there_are_means_alone():
    found = compared({"kmeans": ["kmeans", "kmeans seed 2"]}, {"kmeans": ["f"], "kmeans seed 2": ["a"]})
    assert difference_table(found) is None and seed_table(found) is not None
