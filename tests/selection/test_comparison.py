import json
from dataclasses import replace
from io import StringIO

import datasets
import numpy as np
import pytest
from rich.console import Console

from deita_train.commands.printed_table import print_table
from deita_train.errors import UserError
from deita_train.selection.measures.compared import as_json, from_json
from deita_train.selection.measures.comparison import compare
from deita_train.selection.measures.comparison_tables import (
    MAX_SOURCES,
    all_tables,
    composition_table,
    diversity_table,
    overlap_tables,
    quantile_table,
    source_table,
)


def chat(*lengths):
    return [{"role": ("user", "assistant")[i % 2], "content": "x" * length} for i, length in enumerate(lengths)]


ROWS = {
    "id": ["a", "b", "c", "d"],
    "messages": [chat(4, 6), chat(5, 15), chat(5, 10, 5, 10), chat(10, 10, 10, 10)],  # 10, 20, 30, 40 characters
    "source": ["web", "web", "book", "web"],
    "tokens": [1, 2, 3, 10],
}
SCORES = np.array([1.0, 2.0, np.nan, 6.0])
AXES = np.eye(4, dtype=np.float32)
SELECTIONS = {"best": ["d", "b"], "all but b": ["a", "c", "d"], "only": ["c"]}


def pool(**changes):
    return datasets.Dataset.from_dict({**ROWS, **changes})


def compared(embeddings=AXES, rows=None, selections=SELECTIONS, **options):
    return compare(pool() if rows is None else rows, embeddings, selections, **options)


def test_composition_by_hand():
    found = compared(scores=SCORES, token_column="tokens", max_length=2)
    best, rest, only = (item.composition for item in found.selections.values())
    assert [item.num_rows for item in (found.pool, best, rest, only)] == [4, 2, 3, 1]
    assert [item.mean_score for item in (found.pool, best, rest, only)] == [3, 4, 3.5, None]
    assert [item.characters.mean for item in (found.pool, best, rest, only)] == pytest.approx([25, 30, 80 / 3, 30])
    assert [item.characters.median for item in (found.pool, best, rest, only)] == [25, 30, 30, 30]
    assert [item.tokens.mean for item in (found.pool, best, rest, only)] == pytest.approx([4, 6, 14 / 3, 3])
    assert [item.turns.mean for item in (found.pool, best, rest, only)] == pytest.approx([1.5, 1.5, 5 / 3, 2])
    # Tokens beyond the second of each row: 1 of 3 and 8 of 10.
    assert [item.beyond for item in (found.pool, best, rest, only)] == pytest.approx([9 / 16, 8 / 12, 9 / 14, 1 / 3])
    assert found.pool.sources == {"web": 0.75, "book": 0.25}
    assert rest.sources == pytest.approx({"web": 2 / 3, "book": 1 / 3})
    assert [item.source_distance for item in found.selections.values()] == pytest.approx([0.25, 1 / 12, 0.75])
    assert (found.max_length, found.unit) == (2, "tokens")


def test_the_limit_counts_characters_without_a_column_of_tokens():
    found = compared(max_length=15)
    # 5, 15 and 25 of 20, 30 and 40 characters.
    assert found.pool.beyond == pytest.approx(45 / 100)
    assert found.selections["best"].composition.beyond == pytest.approx(30 / 60)
    assert found.unit == "characters"


def test_diversity_of_orthogonal_rows():
    # Of four orthogonal rows, n stand for themselves alone. All distances are 1, all squared distances 2.
    found = [item.diversity for item in compared().selections.values()]
    assert [item.facility_location for item in found] == pytest.approx([0.5, 0.75, 0.25])
    assert [item.vendi_score for item in found] == pytest.approx([2, 3, 1])
    assert [item.nearest and item.nearest.mean for item in found] == [0, 0, None]
    assert [item.novel_sum for item in found] == [pytest.approx(2**-0.5), pytest.approx(2**-0.5), None]


def test_centring_is_passed_on():
    # Less their mean, four orthogonal rows have cosines of -1/3: squared distances 8/3, distances 4/3.
    found = compared(center=True).selections["best"].diversity
    assert found.nearest.mean == pytest.approx(-1 / 3)
    assert found.facility_location == pytest.approx((1 + 1 - 1 / 3 - 1 / 3) / 4)
    assert found.novel_sum == pytest.approx((8 / 3) ** -0.5 * 4 / 3)


def test_each_selection_has_the_density_factors_of_its_own_rows():
    # c and d are 60 degrees apart, a and b at right angles to all: squared distances to the nearest of 2, 2, 1, 1.
    rows = np.array([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0.5, np.sqrt(0.75))], dtype=np.float32)
    found = compared(rows, selections={"ab": ["a", "b"], "ad": ["d", "a"], "cd": ["c", "d"]}, num_neighbours=1)
    novelty = [item.diversity.novel_sum for item in found.selections.values()]
    assert novelty == pytest.approx([2**-0.5, (2**-0.5 + 1) / 2, 0.5], rel=1e-6)


def test_overlap_is_in_the_order_of_the_selections():
    assert compared().overlap.tolist() == [[1, 0.25, 0], [0.25, 1, 1 / 3], [0, 1 / 3, 1]]


def test_without_embeddings_sources_and_scores():
    found = compared(None, pool().remove_columns(["source", "tokens"]))
    assert all(item.diversity is None and item.source_distance is None for item in found.selections.values())
    assert found.pool.mean_score is found.pool.sources is found.pool.tokens is found.pool.beyond is None
    assert composition_table(found).titles == ("selection", "rows", "mean characters", "mean turns")
    assert diversity_table(found) is source_table(found) is None
    assert [table.title for table in all_tables(found)] == [
        "What the selections are made of", "Overlap of the selections", "Quantiles",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("selections", "message"),
    [
        ({}, "no selection to compare"),
        ({"x": ["a", "e", "f"]}, r"selection 'x': 2 of 3 rows are not in the pool: 'e', 'f'"),
        ({"x": ["a", "a"]}, "selection 'x' holds an id more than once"),
        ({"x": []}, "selection 'x' is empty"),
    ],
)
def test_selections_that_cannot_be_compared(selections, message):
    with pytest.raises(UserError, match=message):
        compared(selections=selections)


@pytest.mark.parametrize("tokens", [[1, None, 3, 4], [1, 0, 3, 4], [1.0, 2.5, 3.0, 4.0]])
def test_a_column_without_token_counts(tokens):
    with pytest.raises(UserError, match=r"column 'tokens' holds no token count for \d of 4 rows: .*'b'"):
        compared(rows=pool(tokens=tokens), token_column="tokens")
    with pytest.raises(UserError, match="num_tokens"):
        compared(token_column="num_tokens")


def test_composition_table():
    table = composition_table(compared(scores=SCORES, token_column="tokens", max_length=2))
    assert table.titles == (
        "selection", "rows", "total tokens", "mean score", "mean characters", "mean tokens", "mean turns",
        "text beyond 2 tokens", "source distance",
    )  # fmt: skip
    dash = "\N{EN DASH}"
    assert table.rows == (
        ("whole pool", "4", "16", "3.000", "25", "4", "1.50", "56.2%", dash),
        ("best", "2", "12", "4.000", "30", "6", "1.50", "66.7%", "0.250"),
        ("all but b", "3", "14", "3.500", "27", "5", "1.67", "64.3%", "0.083"),
        ("only", "1", "3", dash, "30", "3", "2.00", "33.3%", "0.750"),
    )
    assert table.note.startswith("Source distance: ")


def test_diversity_table():
    table = diversity_table(compared())
    assert table.titles == ("selection", "nearest similarity", "facility location", "Vendi score", "NovelSum")
    dash = "\N{EN DASH}"
    assert table.rows == (
        ("best", "0.0000", "0.5000", "2.0", "0.7071"),
        ("all but b", "0.0000", "0.7500", "3.0", "0.7071"),
        ("only", dash, "0.2500", "1.0", dash),
    )
    for title in table.titles[1:]:
        assert title.lower() in table.note.lower()


def test_a_selection_may_be_named_like_the_pool():
    table = composition_table(compared(selections={"whole pool": ["a"]}))
    assert [row[:2] for row in table.rows] == [("whole pool", "4"), ("whole pool", "1")]


def test_source_and_overlap_tables():
    found = compared()
    table = source_table(found)
    assert table.titles == ("selection", "web", "book")
    assert table.rows == (
        ("whole pool", "75.0%", "25.0%"),
        ("best", "100.0%", "0.0%"),
        ("all but b", "66.7%", "33.3%"),
        ("only", "0.0%", "100.0%"),
    )
    (overlap,) = overlap_tables(found)
    assert overlap.titles == ("selection", "1", "2", "3") and overlap.title == "Overlap of the selections"
    assert overlap.rows[1] == ("2 all but b", "0.25", "1.00", "0.33")


def test_the_overlap_of_many_selections_can_be_read_at_80_columns():
    names = ["deita", "longest_instruction", *(f"facility_location {number}" for number in range(13))]
    overlap = np.arange(225).reshape(15, 15) / 225
    found = replace(compared(), selections=dict.fromkeys(names), overlap=overlap)
    first, second = overlap_tables(found)
    assert (first.title, second.title) == ("Overlap of the selections, 1 to 8", "Overlap of the selections, 9 to 15")
    assert first.note == "" and second.note.startswith("Rows in both selections")
    numbers = [
        [float(value) for value in (*left[1:], *right[1:])] for left, right in zip(first.rows, second.rows, strict=True)
    ]
    np.testing.assert_allclose(numbers, overlap, rtol=0, atol=0.005001)
    assert [row[0] for row in first.rows] == [f"{place} {name}" for place, name in enumerate(names, start=1)]
    shown = StringIO()
    for table in (first, second):
        print_table(Console(file=shown, width=80), table, framed=False)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    # Every row on one line, in both tables: its name and all of its numbers.
    assert sum(line.split()[1:3] == ["facility_location", "12"] for line in lines) == 2
    assert [len(line.split()) for line in lines if line.startswith(" 15 ")] == [3 + 8, 3 + 7]


def test_many_sources_and_a_single_one():
    num_rows = 2 * MAX_SOURCES
    rows = {"id": [f"{i:02}" for i in range(num_rows)], "messages": [chat(1, 1)] * num_rows}
    many = datasets.Dataset.from_dict({**rows, "source": [f"s{i:02}" for i in range(num_rows)]})
    table = source_table(compared(None, many, {"x": ["00", "11"]}))
    assert table.titles == ("selection", *(f"s0{i}" for i in range(MAX_SOURCES - 1)), "7 others")
    assert table.rows[0][1:] == ("8.3%",) * (MAX_SOURCES - 1) + ("58.3%",)
    assert table.rows[1][1:] == ("50.0%", *["0.0%"] * (MAX_SOURCES - 2), "50.0%")
    one = datasets.Dataset.from_dict({**rows, "source": ["s"] * num_rows})
    found = compared(None, one, {"x": ["00"]})
    assert source_table(found) is None and "source distance" not in composition_table(found).titles


@pytest.mark.parametrize("embeddings", [AXES, None])
def test_a_comparison_comes_back_from_json(embeddings):
    found = compared(embeddings, scores=SCORES, max_length=2)
    text = json.dumps(as_json(found), allow_nan=False)
    back = from_json(json.loads(text))
    assert (back.overlap == found.overlap).all()
    assert replace(back, overlap=None) == replace(found, overlap=None)
    assert json.loads(text)["pool"]["characters"]["quantiles"]["0.5"] == 25


def test_each_step_is_reported():
    told = []
    compared(on_step=lambda *step: told.append(step))
    assert told == [(0, 4, "how dense the pool is"), (1, 4, "best"), (2, 4, "all but b"), (3, 4, "only"), (4, 4, "")]


def test_quantile_table():
    table = quantile_table(compared())
    assert table.titles == ("selection", "quantity", "mean", "0", "0.1", "0.25", "0.5", "0.75", "0.9", "1")
    quantities = [row[:2] for row in table.rows]
    assert quantities[:2] == [("whole pool", "characters"), ("whole pool", "turns")]
    assert quantities[2:5] == [("best", "characters"), ("best", "turns"), ("best", "nearest similarity")]
    assert len(quantities) == 2 + 3 + 3 + 2
    # Of 20 and 40 characters.
    assert table.rows[2] == ("best", "characters", "30", "20", "22", "25", "30", "35", "38", "40")
