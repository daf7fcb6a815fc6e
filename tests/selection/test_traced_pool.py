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
