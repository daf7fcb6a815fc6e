import ast
from dataclasses import fields
from pathlib import Path
from typing import get_args

import datasets
import numpy as np
import pytest
from select_by import select_by

from deita_train.errors import UserError
from deita_train.recipe.schema import Select, SelectMethod
from deita_train.selection import settings as rule_file
from deita_train.selection.baselines.ranking import top_rows
from deita_train.selection.candidates import Candidates, Queries
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.select_rows import method_function, select_rows
from deita_train.selection.settings import METHODS, SelectionSettings, rules_of
from deita_train.selection.trace.trace_columns import attach_trace, keep_selected, nearest_summary
from deita_train.selection.unrankable import IN_WORDS, unrankable_by_column, unrankable_rows


def chat(*turns):
    """Messages from alternating user and assistant texts."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


# Row:       a          b              c       d
# evol:      2*3 = 6    1*4+1*1 = 5    5*1 = 5 (tie, b first)   1*1 = 1 (turn 2 is null)
# complexity 2          2              5       1+6 = 7
# quality    3          5              1       1
# responses  4          3+3 = 6        6 (tie, b first)         1
# questions  50         2              1                        91
ROWS = {
    "id": ["a", "b", "c", "d"],
    "messages": [
        chat("q" * 50, "yyyy"),
        chat("q", "yes", "q", "nay"),
        chat("q", "yyyyyy"),
        chat("q", "y", "q" * 90),
    ],
    "complexity_scores": [[2.0], [1.0, 1.0], [5.0], [1.0, 6.0]],
    "quality_scores": [[3.0], [4.0, 1.0], [1.0], [1.0, None]],
    "number": [0.5, 0.25, 0.5, 0.75],
    "tags": [["x"], ["x", "y"], ["x", "y", "x"], []],
}
# b points almost where a does; c and d are at right angles to a.
EMBEDDINGS = np.array([(1, 0, 0), (1, 0.01, 0), (0, 1, 0), (0, 0, 1)], dtype=np.float32)
EXPECTED = {
    "deita": ["a", "c", "d"],
    "evol_score": ["a", "b", "c", "d"],
    "complexity": ["d", "c", "a", "b"],
    "quality": ["b", "a", "c", "d"],
    "longest_response": ["b", "c", "a", "d"],
    "longest_instruction": ["d", "a", "b", "c"],
    "whole_pool": ["a", "b", "c", "d"],
}
# Methods whose own tests lie in other files.
ELSEWHERE = {
    "random": "here, below",
    "direct_score": "test_ranking",
    "perplexity": "test_ranking",
    "ifd": "test_ranking",
    "weighted": "test_weighting",
    "instag": "test_tags",
    "mig": "test_tags",
    "k_center": "test_coverage",
    "facility_location": "test_coverage",
    "kmeans": "test_clusters",
    "gist": "test_gist",
    "fit": "test_fit",
    "target": "test_target",
}
# The methods of which a smaller budget is a prefix of a larger one: all but two.
WITH_PREFIX = sorted(set(METHODS) - {"kmeans", "gist"})


def dataset(order=(0, 1, 2, 3)):
    return datasets.Dataset.from_dict(ROWS).select(list(order))


def select_ids(method, order=(0, 1, 2, 3), **settings):
    rows = dataset(order)
    trace = select_by(method, rows, embeddings=EMBEDDINGS[list(order)], **settings)
    ranked = sorted((rank, rows["id"][i]) for i, rank in enumerate(trace.selection_rank) if rank >= 0)
    assert [rank for rank, _ in ranked] == list(range(len(ranked)))
    return [row_id for _, row_id in ranked]


def unrankable(method, rows, **settings):
    return unrankable_rows(Candidates(rows, SelectionSettings(method, **settings)))


def test_the_methods_and_the_recipe_agree():
    assert list(METHODS) == list(get_args(SelectMethod))
    # Those by score (evol_score, complexity, quality, weighted) and those by number share their function.
    assert len({id(method_function(method)) for method in METHODS}) == len(METHODS) - 3 - 2


def test_what_methods_read_is_a_field_or_another_section():
    read = frozenset().union(*(rules.reads for rules in METHODS.values()))
    assert read - set(Select.model_fields) == {"scores", "embeddings"}
    assert set(Select.model_fields) - read == {
        "method",
        "budget",
        "allow_fewer",
        "read_as",
        "between",
        "strata",
        "decontaminate",
    }


def test_settings_have_one_default():
    shared = [field for field in fields(SelectionSettings) if field.name in Select.model_fields]
    assert {field.name for field in fields(SelectionSettings)} - {field.name for field in shared} == {"center"}
    assert {field.name: field.default for field in shared} == {
        field.name: Select.model_fields[field.name].default for field in shared
    }
    settings = {name for rules in METHODS.values() for name in (*rules.settings, *rules.later_settings)}
    assert settings < {field.name for field in shared}


def test_without_a_weight_facility_location_reads_no_scores():
    with_weight, without = rules_of("facility_location", 0.5), rules_of("facility_location", 0.0)
    assert with_weight.reads == METHODS["facility_location"].reads >= {"embeddings", "scores", "score"}
    assert without.reads == {"embeddings", "quality_weight"}
    assert (with_weight.scores, without.scores) == ("required", "none")
    for method in sorted(set(METHODS) - {"facility_location"}):
        assert rules_of(method, 0.0) == METHODS[method]


def test_the_rule_file_imports_nothing_heavy():
    nodes = [ast.parse(Path(rule_file.__file__).read_text())]
    imported = set()
    while nodes:
        node = nodes.pop()
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported.add(getattr(node, "module", None))
    assert imported == {
        "collections.abc", "dataclasses", "functools", "typing", "deita_train.errors", "deita_train.scoring.evol_score",
    }  # fmt: skip


def test_every_method_has_a_case():
    assert set(EXPECTED) | set(ELSEWHERE) == set(METHODS)


@pytest.mark.parametrize("method", EXPECTED)
@pytest.mark.parametrize("budget", [None, 1, 2, 4, 9])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 1, 0)])
def test_methods(method, budget, order):
    kept = EXPECTED[method] if method == "whole_pool" else EXPECTED[method][:budget]
    assert select_ids(method, order, budget=budget) == kept


def random_pool(seed, num_rows=40):
    """Rows with every column that a method reads, tied values among them, and their embeddings."""
    rng = np.random.default_rng(seed)
    turns = rng.integers(1, 3, size=num_rows)
    columns = {
        "id": [f"row-{number}" for number in rng.permutation(num_rows)],
        "messages": [chat("q" * rng.integers(1, 9), "a" * rng.integers(1, 9)) for _ in turns],
        "complexity_scores": [rng.integers(1, 7, size=number).astype(float).tolist() for number in turns],
        "quality_scores": [rng.integers(1, 7, size=number).astype(float).tolist() for number in turns],
        "number": (rng.integers(0, 10, size=num_rows) / 10).tolist(),
        "tags": [sorted(rng.choice(list("uvwxyz"), size=rng.integers(1, 4), replace=False)) for _ in turns],
    }
    return datasets.Dataset.from_dict(columns), rng.standard_normal((num_rows, 6)).astype(np.float32)


def kept_ids(method, rows, embeddings, budget):
    settings = {"column": "tags" if method in ("instag", "mig") else "number", "seed": 3, "threshold": 0.5}
    if method == "fit":
        settings["among"] = "pool"
    if method == "weighted":
        number = {"weight": 1.5, "order": "middle"}
        weights = {"number": number, "evol": {"weight": 1, "order": "lowest"}}
        settings["score"] = {"weights": weights, "scale": "z", "combine": "sum"}
    queries = Queries(["q1", "q0"], np.eye(6, dtype=np.float32)[:2]) if method == "target" else None
    trace = select_rows(Candidates(rows, SelectionSettings(method, **settings), embeddings, queries=queries), budget)
    places = np.flatnonzero(trace.selection_rank >= 0)
    ranked = places[np.argsort(trace.selection_rank[places])]
    assert trace.selection_rank[ranked].tolist() == list(range(len(ranked)))
    if method != "deita":
        assert np.isnan(trace.nearest_similarity).all()
        assert (trace.blocked_by == -1).all()
    return [rows["id"][int(place)] for place in ranked]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_the_rows_does_not_matter(method, seed):
    rows, embeddings = random_pool(seed)
    shuffled = np.random.default_rng(seed + 7).permutation(len(rows))
    for budget in (1, 13, 40):
        kept = kept_ids(method, rows, embeddings, budget)
        assert kept_ids(method, rows.select(shuffled), embeddings[shuffled], budget) == kept
        if method not in ("deita", "gist", "whole_pool"):
            assert len(kept) == budget


@pytest.mark.parametrize("method", WITH_PREFIX)
def test_a_smaller_budget_selects_a_prefix(method):
    rows, embeddings = random_pool(2)
    whole = kept_ids(method, rows, embeddings, None)
    assert len(whole) == len(rows) or method == "deita"
    for budget in (1, 2, 5, 17, 39, 60):
        assert kept_ids(method, rows, embeddings, budget) == (whole if method == "whole_pool" else whole[:budget])


def test_random_depends_on_the_seed_alone():
    drawn = {tuple(select_ids("random", budget=None, seed=seed)) for seed in range(120)}
    assert len(drawn) == 24  # every order of four rows occurs
    for seed in range(5):
        whole = select_ids("random", budget=None, seed=seed)
        assert select_ids("random", (3, 1, 0, 2), budget=None, seed=seed) == whole
        assert select_ids("random", budget=2, seed=seed) == whole[:2]


def test_deita_passes_its_settings_on():
    assert select_ids("deita", budget=None, threshold=1.0) == ["a", "b", "c", "d"]
    assert select_ids("deita", budget=None, threshold=0.9, center=True) == ["a", "c", "d"]
    assert select_ids("deita", budget=None, threshold=-0.4) == ["a"]
    # Less the mean, (0.5, 0.2525, 0.25), the cosine of a and c is -0.66 and that of c and d is -0.14.
    assert select_ids("deita", budget=None, threshold=-0.4, center=True) == ["a", "c"]


def test_top_rows_leaves_the_similarities_empty():
    trace = top_rows(["a", "b"], np.array([1.0, 2.0]), 1)
    assert trace.selection_rank.tolist() == [-1, 0]
    assert np.isnan(trace.nearest_similarity).all()
    assert trace.blocked_by.tolist() == [-1, -1]


def test_unknown_method():
    with pytest.raises(UserError, match=r"'dieta'; choose one of deita, evol_score"):
        select_by("dieta", dataset(), budget=1)


@pytest.mark.parametrize(
    ("method", "need"),
    [
        ("deita", "embeddings"),
        ("random", "seed"),
        ("ifd", "column"),
        ("mig", "column"),
        ("target", "embeddings and target"),
        ("kmeans", "embeddings and seed"),
    ],
)
def test_missing_input(method, need):
    with pytest.raises(UserError, match=f"'{method}' needs {need}"):
        select_by(method, dataset(), budget=1)


def test_missing_column():
    with pytest.raises(UserError, match="needs the column 'quality_scores'"):
        select_by("quality", dataset().remove_columns("quality_scores"), budget=1)
    assert select_by("complexity", dataset().remove_columns("quality_scores"), budget=1).selection_rank[3] == 0


@pytest.mark.parametrize("method", ["deita", "evol_score", "quality"])
def test_a_row_without_a_score_is_named(method):
    rows = datasets.Dataset.from_dict({**ROWS, "quality_scores": [[3.0], [None, None], [1.0], [1.0, None]]})
    with pytest.raises(UserError, match=r"1 of 4 rows have no score.*'b'"):
        select_by(method, rows, budget=1, embeddings=EMBEDDINGS)


def test_a_row_that_cannot_be_ranked_is_named():
    with pytest.raises(UserError, match=r"^1 of 4 rows have no tags in the column: 'd'\. Complete"):
        select_by("instag", dataset(), budget=1, column="tags")


def test_every_reason_is_reported_in_words():
    rows = dataset().add_column("ifd", [0.5, None, 1.0, float("nan")])
    assert unrankable("ifd", rows, column="ifd") == [None, "no_value", "ifd_not_below_one", "no_value"]
    assert unrankable("direct_score", rows, column="ifd") == [None, "no_value", None, "no_value"]
    assert unrankable("instag", rows, column="tags") == [None, None, None, "no_tags"]
    assert unrankable("deita", rows) == unrankable("random", rows) == [None] * 4
    unscored = rows.remove_columns("quality_scores").add_column(
        "quality_scores", [[None], [4.0, 1.0], [1.0], [None] * 2]
    )
    for method in ("deita", "evol_score", "kmeans", "facility_location", "quality"):
        assert unrankable(method, unscored) == ["no_scored_turn", None, None, "no_scored_turn"]
    assert unrankable("mig", unscored, column="tags") == ["no_scored_turn", None, None, "no_tags"]
    for method in ("complexity", "k_center", "whole_pool", "longest_instruction"):
        assert unrankable(method, unscored) == [None] * 4
    assert unrankable("facility_location", unscored, quality_weight=0.0) == [None] * 4
    assert unrankable("deita", unscored, score="complexity") == [None] * 4
    by_column = unrankable_by_column(Candidates(unscored, SelectionSettings("mig", column="tags")))
    assert by_column == [None, None, None, "no_tags"]
    score = {"weights": {"ifd": {"weight": 1, "order": "highest"}}, "scale": "z", "combine": "sum"}
    assert unrankable("deita", rows, score=score) == [None, "no_weighted_number", None, "no_weighted_number"]
    of_stages = {"contaminated", "not_embedded", "not_trainable", "no_limited_number", "outside_limits", "no_stratum"}
    of_methods = {"no_scored_turn", "no_value", "ifd_not_below_one", "no_tags", "no_weighted_number"}
    assert set(IN_WORDS) == of_stages | of_methods


@pytest.mark.parametrize("budget", [0, -1])
def test_budget_below_one(budget):
    with pytest.raises(UserError, match="at least 1"):
        select_by("quality", dataset(), budget=budget)


def test_attach_trace_and_keep_selected():
    rows = dataset((3, 1, 2, 0))
    trace = select_by("deita", rows, budget=None, embeddings=EMBEDDINGS[[3, 1, 2, 0]])
    traced = attach_trace(rows, trace, rows["id"])
    assert list(traced["id"]) == ["d", "b", "c", "a"]
    assert list(traced["messages"]) == list(rows["messages"])
    assert list(traced["selection_rank"]) == [2, None, 1, 0]
    assert list(traced["blocked_by"]) == [None, "a", None, None]
    cosine = 1 / np.sqrt(1 + 0.01**2)
    assert traced["nearest_similarity"][1] == pytest.approx(cosine, abs=1e-6)
    # b was rejected, so c and d are compared with a (and c) alone.
    assert [traced["nearest_similarity"][i] for i in (0, 2, 3)] == [0.0, 0.0, None]
    assert traced.features["selection_rank"] == datasets.Value("int64")
    assert traced.features["nearest_similarity"] == datasets.Value("float32")
    assert traced.features["blocked_by"] == datasets.Value("string")
    assert list(keep_selected(traced, None)["id"]) == ["a", "c", "d"]
    assert list(keep_selected(traced, 2)["id"]) == ["a", "c"]
    assert list(keep_selected(traced, 2)["selection_rank"]) == [0, 1]


def test_attaching_again_replaces_the_columns():
    rows = dataset()
    first = attach_trace(rows, select_by("deita", rows, budget=1, embeddings=EMBEDDINGS), rows["id"])
    again = attach_trace(first, select_by("quality", first, budget=2), rows["id"])
    assert list(again["selection_rank"]) == [1, 0, None, None]
    assert list(again["nearest_similarity"]) == list(again["blocked_by"]) == [None] * 4
    assert again.features == first.features


def test_an_unselected_dataset_on_disk_is_left_as_it_is(tmp_path):
    dataset().save_to_disk(tmp_path / "pool")
    rows = datasets.load_from_disk(tmp_path / "pool")
    for budget in (1, 3):  # the second call must not be answered from a cache of the first
        traced = attach_trace(rows, select_by("quality", rows, budget=budget), rows["id"])
        assert list(keep_selected(traced, None)["id"]) == EXPECTED["quality"][:budget]
    assert rows.column_names == list(ROWS)


def test_the_ids_must_be_those_of_the_rows():
    with pytest.raises(AssertionError, match="order"):
        attach_trace(dataset(), Trace.empty(4), ["b", "a", "c", "d"])


def test_nearest_summary():
    trace = Trace(
        selection_rank=np.array([0, 1, -1, -1, 2, -1]),
        nearest_similarity=np.array([np.nan, 0.0, 0.5, 1.0, 0.25, np.nan], dtype=np.float32),
        blocked_by=np.array([-1, -1, 0, 1, -1, -1]),
    )
    # Of 0, 0.25, 0.5, 1: quantile q lies at index 3q, so 0.1 is 0.3 * 0.25 and 0.9 is 0.5 + 0.7 * 0.5.
    assert nearest_summary(trace) == {
        "num_seen": 5,
        "num_kept": 3,
        "num_rejected": 2,
        "quantiles": pytest.approx(
            {"0": 0.0, "0.1": 0.075, "0.25": 0.1875, "0.5": 0.375, "0.75": 0.625, "0.9": 0.85, "1": 1.0}
        ),
    }


def test_nearest_summary_of_a_walk_that_compared_nothing():
    summary = nearest_summary(top_rows(["a", "b"], np.array([1.0, 2.0]), 1))
    assert (summary["num_seen"], summary["num_kept"], summary["num_rejected"]) == (1, 1, 0)
    assert set(summary["quantiles"].values()) == {None}
