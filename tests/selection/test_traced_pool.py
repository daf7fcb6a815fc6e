import datasets

from deita_train.selection.trace.traced_pool import traced_pool


def test_every_row_keeps_its_place_and_gets_its_decision():
    pool = datasets.Dataset.from_list(
        [{"id": name, "messages": [{"role": "user", "content": name}], "selection_rank": 9} for name in "abcd"]
    )
    trace = datasets.Dataset.from_list(
        [
            {"id": "d", "quality_scores": [1.0], "selection_rank": None, "nearest_similarity": 0.75, "blocked_by": "a"},
            {"id": "a", "quality_scores": [2.0], "selection_rank": 0, "nearest_similarity": None, "blocked_by": None},
            {"id": "b", "quality_scores": [3.0], "selection_rank": 1, "nearest_similarity": 0.5, "blocked_by": None},
        ]
    )
    rows = list(traced_pool(pool, trace))
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["messages"][0]["content"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["selection_rank"] for row in rows] == [0, 1, None, None]
    assert [row["nearest_similarity"] for row in rows] == [None, 0.5, None, 0.75]
    assert [row["blocked_by"] for row in rows] == [None, None, None, "a"]
    assert [row["quality_scores"] for row in rows] == [[2.0], [3.0], None, [1.0]]
    assert "evol_score" not in rows[0]


def test_columns_that_were_measured_come_along_and_sizes_do_not():
    pool = datasets.Dataset.from_list([{"id": name, "own": 1} for name in "ab"])
    trace = [
        {"id": name, "own": 2, "ifd": 0.5, "selection_score": 0.5, "not_ranked": reason, "num_turns": 1, "num_chars": 2}
        for name, reason in (("b", "no_value"), ("a", None))
    ]
    rows = list(traced_pool(pool, datasets.Dataset.from_list(trace)))
    assert [(row["own"], row["ifd"], row["selection_score"], row["not_ranked"]) for row in rows] == [
        (1, 0.5, 0.5, None),
        (1, 0.5, 0.5, "no_value"),
    ]
    assert not {"num_turns", "num_chars"} & set(rows[0])
