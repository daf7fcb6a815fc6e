"""RDS+'s round-robin by hand, and against a walk that takes turns one after the other."""

import datasets
import numpy as np
import pytest
from embedded_pools import embedded, has_directions, unit_rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deita_train.data.embeddings import write_embeddings
from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates, Queries
from deita_train.selection.select_rows import select_rows
from deita_train.selection.settings import SelectionSettings
from deita_train.selection.whitening import Whitening
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.selecting import select


def kept(ids, embeddings, queries, budget=None, query_ids=None, center=False):
    query_ids = query_ids or [f"q{number}" for number in range(len(queries))]
    found = Candidates(
        datasets.Dataset.from_dict({"id": list(ids)}),
        SelectionSettings("target", center=center),
        np.asarray(embeddings, np.float32),
        queries=Queries(query_ids, np.asarray(queries, np.float32)),
    )
    return [ids[int(place)] for place in select_rows(found, budget).kept]


def taking_turns(ids, embeddings, queries, budget, center):
    """As the public code: each query in turn takes its next nearest row, and loses the turn if that is taken."""
    embeddings, queries = np.asarray(embeddings, np.float64), np.asarray(queries, np.float64)
    mean = embeddings.mean(axis=0) if center else 0.0
    similarity = (unit_rows(queries - mean) @ unit_rows(embeddings - mean).T).round(5)
    lists = [sorted(range(len(ids)), key=lambda row, of=of: (-of[row], ids[row])) for of in similarity]
    found = []
    for turn in range(len(ids)):
        for of_query in lists:
            if of_query[turn] not in found:
                found.append(of_query[turn])
    return [ids[row] for row in found][:budget]


def test_the_best_row_of_each_query_first():
    rows = [(1, 0), (0.9, 0.1), (0, 1), (0.1, 0.9), (-1, 0)]
    # q0 is near a and b, q1 near c and d; e is far from both, as near to q1 as to nothing else.
    assert kept("abcde", rows, [(1, 0), (0, 1)]) == ["a", "c", "b", "d", "e"]
    assert kept("abcde", rows, [(1, 0), (0, 1)], 3) == ["a", "c", "b"]
    assert kept("abcde", rows, [(1, 0), (0, 1)], 3, query_ids=["z", "y"]) == ["c", "a", "d"]  # queries go by id


def test_a_query_whose_row_is_taken_loses_its_turn():
    rows = [(1, 0), (0.9, 0.3), (0, 1)]
    # Both queries name a first; q1 has nothing then. In the second round both name b.
    assert kept("abc", rows, [(1, 0), (1, 0.01)]) == ["a", "b", "c"]
    assert kept("abc", rows, [(1, 0), (0.2, 1), (1, 0.01)]) == ["a", "c", "b"]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(embedded(max_rows=15), st.integers(1, 70), st.integers(0, 99), st.integers(1, 16), st.booleans())
def test_agrees_with_taking_turns(drawn, num_queries, seed, budget, center):
    ids, embeddings, _ = drawn
    embeddings = embeddings.astype(np.float32)
    queries = np.random.default_rng(seed).standard_normal((num_queries, embeddings.shape[1])).astype(np.float32)
    assume(has_directions(embeddings, center))
    names = [f"q{number:02}" for number in range(num_queries)]
    mean = embeddings.astype(np.float64).mean(axis=0) if center else 0.0
    similarity = unit_rows(queries - mean) @ unit_rows(embeddings - mean).T
    gaps = np.diff(np.sort(similarity, axis=1), axis=1)
    assume(not gaps.size or gaps.min() > 1e-4)  # no order that rounding could decide
    assert kept(ids, embeddings, queries, budget, names, center) == taking_turns(
        ids, embeddings, queries, budget, center
    )


def test_copies_go_by_id():
    rows = np.random.default_rng(0).standard_normal((1030, 5))
    rows[1029] = rows[2]
    ids = [f"{number:04}" for number in range(1030)]
    assert kept(ids, rows, [rows[2]], 2) == ["0002", "1029"]


def test_queries_of_another_encoder_and_without_a_direction():
    with pytest.raises(UserError, match="the pool's embeddings have 2 dimensions and the queries' 3"):
        kept("ab", [(1, 0), (0, 1)], [(1, 0, 0)])
    whitening = Whitening.of_pool(np.eye(4, 2), list("abcd"), 1)
    with pytest.raises(UserError, match="the pool's embeddings have 2 dimensions and the queries' 3"):
        whitening.apply(np.eye(1, 3), ["q"])
    with pytest.raises(UserError, match=r"1 of 2 embeddings have no direction.*'q1'"):
        kept("ab", [(1, 0), (0, 1)], [(1, 0), (0, 0)])


def test_the_stage_reads_the_queries_and_whitens_them_as_the_pool(tmp_path):
    rng = np.random.default_rng(3)
    ids = [f"r{number}" for number in range(20)]
    rows, queries = rng.standard_normal((20, 4)) * (9, 3, 1, 0.3), rng.standard_normal((2, 4)) * (9, 3, 1, 0.3)
    rows, queries = rows.astype(np.float32), queries.astype(np.float32)
    write_embeddings(tmp_path / "embed" / "data", ids, rows)
    write_embeddings(tmp_path / "target" / "data", ["q0", "q1"], queries)
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    datasets.Dataset.from_dict({"id": ids, "messages": [turn] * 20}).save_to_disk(str(tmp_path / "pool" / "data"))
    parents = {name: tmp_path / name for name in ("pool", "embed", "target")}
    whitening = Whitening.of_pool(rows, ids, 3)
    for whiten, vectors in (
        (None, (rows, queries)),
        (3, (whitening.apply(rows, ids), whitening.apply(queries, ["q0", "q1"]))),
    ):
        work = tmp_path / f"work-{whiten}"
        work.mkdir()
        identity = {"method": "target", "budget": 5, "center": False, "whiten": whiten}
        context = StageContext(
            "select", "select", identity, {"allow_fewer": False}, parents, work, 0, 1, Progress(None)
        )
        select.run(context)
        found = list(datasets.load_from_disk(str(work / "data"))["id"])
        assert found == taking_turns(ids, *vectors, 5, center=False)
