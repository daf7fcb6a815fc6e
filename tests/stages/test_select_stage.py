"""The stage `select` with methods that read a column or embeddings: what is left out and counted, and the trace."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from deita_train.data.embeddings import write_embeddings
from deita_train.errors import UserError
from deita_train.plan.launch import resolve_launch
from deita_train.selection.repr_filter import repr_filter
from deita_train.selection.repr_filter.unit_rows import UnitRows
from deita_train.selection.trace.fewer_than_budget import fewer_than_budget
from deita_train.selection.trace.traced_pool import traced_pool
from deita_train.stages.checks import content_digest
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.intake import scores_file
from deita_train.stages.selecting import select

IDS = list("abcdef")
# d has no number, e is at 1, f above it; a and d have no tags.
VALUES = [0.5, 0.75, 0.25, None, 1.0, 1.5]
TAGS = [[], ["x"], ["x", "y"], None, ["y"], ["z"]]
GROUPS = list("xxyxxy")
TURN = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
# c has no quality at all.
SCORES = {"complexity": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "quality": [1.0, 1.0, None, 1.0, 1.0, 1.0]}


@pytest.fixture
def carry_out(tmp_path):
    """A function that carries the stage out and gives its result, the kept ids and the trace by id."""
    columns = {"id": IDS, "messages": [TURN] * 6, "value": VALUES, "tags": TAGS, "rating": VALUES, "group": GROUPS}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "pool" / "data"))
    for name, scores in SCORES.items():
        table = datasets.Dataset.from_dict({"id": IDS[::-1], f"{name}_scores": [[score] for score in scores[::-1]]})
        table.save_to_disk(str(tmp_path / name / "data"))
    write_embeddings(tmp_path / "embed" / "data", IDS, np.eye(6, dtype=np.float32))

    def run(*parents, allow_fewer=False, launch=None, **config):
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        places = {name: tmp_path / name for name in ("pool", *parents)}
        settings = {"allow_fewer": allow_fewer, **({"launch": resolve_launch(launch, 1).as_dict()} if launch else {})}
        context = StageContext("select", "select", config, settings, places, work, 0, 1, Progress(None))
        result = select.run(context)
        trace = datasets.load_from_disk(str(work / "trace"))
        ranks = dict(zip(trace["id"], trace["selection_rank"], strict=True))
        return result, list(datasets.load_from_disk(str(work / "data"))["id"]), ranks

    return run


def test_ifd_counts_what_has_no_value_and_what_is_not_below_one(carry_out):
    result, kept, ranks = carry_out(method="ifd", budget=2, column="value")
    assert kept == ["b", "a"]
    assert ranks == {"a": 1, "b": 0, "c": None, "d": None, "e": None, "f": None}
    assert result.drops == {"no_value": 1, "ifd_not_below_one": 2, "not_selected": 1}
    assert (result.rows_in, result.rows_out) == (6, 2)
    # Of a and b, and of the five rows that have one; the row without is counted.
    mean = {"selected": 0.625, "pool": 0.8, "lacking": 1}
    assert result.metrics["columns"] == {"value": mean, "rating": mean}


def all_rows(tmp_path):
    """What `select --all` writes, by id."""
    pool, trace = (
        datasets.load_from_disk(str(tmp_path / name)) for name in (Path("pool") / "data", Path("work") / "trace")
    )
    return {row["id"]: row for row in traced_pool(pool, trace)}


def test_all_rows_have_the_number_that_they_were_ranked_by_or_the_reason_why_not(carry_out, tmp_path):
    carry_out(method="ifd", budget=2, column="value")
    rows = all_rows(tmp_path)
    assert [rows[name]["selection_score"] for name in IDS] == VALUES
    reasons = [None, None, None, "no_value", "ifd_not_below_one", "ifd_not_below_one"]
    assert [rows[name]["not_ranked"] for name in IDS] == reasons
    assert [rows[name]["selection_rank"] for name in IDS] == [1, 0, None, None, None, None]


def test_kept_rows_have_the_number_too_and_none_by_a_method_without_one(carry_out, tmp_path):
    carry_out("complexity", "quality", method="evol_score", budget=2, score="evol")
    kept = datasets.load_from_disk(str(tmp_path / "work" / "data"))
    assert list(zip(kept["id"], kept["selection_score"], strict=True)) == [("f", 6.0), ("e", 5.0)]
    assert "not_ranked" not in kept.column_names
    rows = all_rows(tmp_path)
    assert [rows[name]["selection_score"] for name in IDS] == [1.0, 2.0, None, 4.0, 5.0, 6.0]
    assert rows["c"]["not_ranked"] == "no_scored_turn" and rows["c"]["quality_scores"] == [None]
    carry_out(method="random", budget=2, seed=0)
    assert "selection_score" not in all_rows(tmp_path)["a"]
    carry_out(method="longest_response", budget=2)
    assert {row["selection_score"] for row in all_rows(tmp_path).values()} == {1.0}


@pytest.mark.parametrize("method", ["perplexity", "ifd", "direct_score"])
def test_all_rows_have_what_another_stage_measured(carry_out, tmp_path, method):
    section = "direct_score" if method == "direct_score" else "perplexity"
    measured = datasets.Dataset.from_dict({"id": IDS[::-1], method: VALUES[::-1]})
    measured.save_to_disk(str(tmp_path / section / "data"))
    order = {"order": "lowest"} if method == "perplexity" else {}
    carry_out(section, method=method, budget=1, column=method, **order)
    rows = all_rows(tmp_path)
    assert [rows[name][method] for name in IDS] == [rows[name]["selection_score"] for name in IDS] == VALUES


def test_an_earlier_selections_columns_are_replaced(carry_out, tmp_path):
    carry_out(method="ifd", budget=2, column="value")
    again = datasets.Dataset.from_list(list(all_rows(tmp_path).values()))
    shutil.rmtree(tmp_path / "pool")
    again.save_to_disk(str(tmp_path / "pool" / "data"))
    carry_out(method="random", budget=6, seed=0)
    rows = all_rows(tmp_path)
    assert {row["not_ranked"] for row in rows.values()} == {None}
    assert "selection_score" not in rows["a"] and rows["a"]["value"] == 0.5
    assert not {"selection_score", "not_ranked"} & set(
        datasets.load_from_disk(str(tmp_path / "work/data")).column_names
    )


def test_numbers_in_float64_are_ranked_and_written_as_given(carry_out, tmp_path):
    # Evol scores that differ in the ninth digit, in an order that float32 would not see.
    complexity = [3.0 + 1e-9 * number for number in (0, 5, 2, 4, 1, 3)]
    for name, scores in {"complexity": complexity, "quality": [2.0] * 6}.items():
        shutil.rmtree(tmp_path / name)
        rows = [{"id": row_id, f"{name}_scores": [score]} for row_id, score in zip(IDS, scores, strict=True)]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        context = StageContext(
            name, "scores_file", {"dimension": name}, {"file": str(file)}, {"pool": tmp_path / "pool"},
            tmp_path / name, 0, 1, Progress(None),
        )  # fmt: skip
        scores_file.run(context)
    _, kept, _ = carry_out("complexity", "quality", method="evol_score", budget=6, score="evol")
    assert kept == ["b", "d", "f", "c", "e", "a"]
    rows = all_rows(tmp_path)
    assert [rows[name]["complexity_scores"] for name in IDS] == [[number] for number in complexity]
    assert [rows[name]["evol_score"] for name in IDS] == [number * 2.0 for number in complexity]


def test_a_rating_is_not_bounded(carry_out):
    result, kept, _ = carry_out(method="direct_score", budget=5, column="rating")
    assert kept == ["f", "e", "b", "a", "c"]
    assert result.drops == {"no_value": 1}


def test_tags_of_lists(carry_out):
    result, kept, ranks = carry_out(method="instag", budget=3, column="tags")
    assert kept == ["c", "f", "b"]  # x and y, then z; the second round begins with b's x
    assert ranks == {"a": None, "b": 2, "c": 0, "d": None, "e": None, "f": 1}
    assert result.drops == {"no_tags": 2, "not_selected": 1}


def test_mig_leaves_out_what_has_no_tags_or_no_score(carry_out):
    result, kept, _ = carry_out(
        "complexity", "quality", method="mig", budget=3, column="tags", label_similarity=0.9, score="evol"
    )
    assert kept == ["f", "e", "b"]
    assert result.drops == {"no_tags": 2, "no_scored_turn": 1}


def test_k_center_keeps_rows_without_a_score(carry_out):
    result, kept, _ = carry_out(
        "complexity", "quality", "embed", method="k_center", budget=6, center=False, score="evol"
    )
    assert kept == ["f", "a", "b", "c", "d", "e"]
    assert result.drops == {}
    assert result.metrics["score_mean"] == {"selected": 3.6, "pool": 3.6}  # 1, 2, 4, 5, 6


def test_facility_location_and_kmeans_by_quality(carry_out):
    for method, more in (("facility_location", {"quality_weight": 0.5}), ("kmeans", {"clusters": 1, "seed": 0})):
        result, kept, _ = carry_out(
            "complexity", "embed", method=method, budget=3, center=False, score="complexity", **more
        )
        assert kept == ["f", "e", "d"]
        assert result.drops == {"not_selected": 3}


def test_nothing_to_rank_and_too_little_of_it(carry_out):
    with pytest.raises(UserError) as caught:
        carry_out(method="ifd", budget=7, column="value")
    assert str(caught.value) == (
        "select: the budget is 7 rows, but only 3 of 6 can be selected (1 have no number in the column, 2 have an IFD "
        "of 1 or more). Add rows to the pool, lower select.budget, or state select.allow_fewer: true."
    )
    _, kept, _ = carry_out(method="ifd", budget=7, column="value", allow_fewer=True)
    assert kept == ["b", "a", "c"]


def test_a_pool_without_a_row_to_rank(carry_out, tmp_path):
    columns = {"id": IDS, "messages": [TURN] * 6, "value": [None, 1.0, 2.0, None, None, 3.0]}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "other" / "data"))
    (tmp_path / "pool").rename(tmp_path / "unused")
    (tmp_path / "other").rename(tmp_path / "pool")
    with pytest.raises(UserError) as caught:
        carry_out(method="ifd", budget=1, column="value")
    assert str(caught.value) == (
        "select: no row of the pool can be ranked: 3 have no number in the column, 3 have an IFD of 1 or more."
    )


def test_a_missing_column_is_reported(carry_out):
    with pytest.raises(UserError, match="the pool has no column 'ratings' for the method to read; it has id, messages"):
        carry_out(method="direct_score", budget=1, column="ratings")


def long_run(tmp_path, seed=0, num_rows=60):
    """A pool with embeddings in clusters, scores of one to three turns and token lengths; the parents of `deita`."""
    rng = np.random.default_rng(seed)
    ids = [f"r{row:02}" for row in rng.permutation(num_rows)]
    turns = rng.integers(1, 4, num_rows)
    place = tmp_path / "many"
    datasets.Dataset.from_dict({"id": ids, "messages": [TURN * int(n) for n in turns]}).save_to_disk(
        str(place / "pool" / "data")
    )
    for name in ("complexity", "quality"):
        scores = [rng.uniform(1, 6, n).astype(np.float32).tolist() for n in turns]
        datasets.Dataset.from_dict({"id": ids, f"{name}_scores": scores}).save_to_disk(str(place / name / "data"))
    vectors = rng.standard_normal((30, 6))[rng.integers(30, size=num_rows)] + 0.2 * rng.standard_normal((num_rows, 6))
    write_embeddings(place / "embed" / "data", ids, vectors.astype(np.float32))
    ends = [np.cumsum(rng.integers(5, 40, n)).tolist() for n in turns]
    lengths = {"id": ids, "num_tokens": [row[-1] for row in ends], "first_trained": [3] * num_rows, "turn_ends": ends}
    datasets.Dataset.from_dict(lengths).save_to_disk(str(place / "lengths" / "data"))
    write_readable(place, None)
    return place


def write_readable(place, context):
    """What the model of SFT can read, as the stage `lengths` leaves it."""
    metrics = {"readable": {"context": context, "positions": None}}
    (place / "lengths" / "metrics.json").write_text(json.dumps(metrics))


def carry(place, name, budget, reusable=(), method="deita", **config):
    """The stage's result and what it leaves, in a folder `name`, published as far as later selections read it."""
    work = place / name
    work.mkdir(exist_ok=True)
    parents = {parent: place / parent for parent in ("pool", "complexity", "quality", "embed")}
    if (isinstance(budget, dict) and "tokens" in budget) or config.get("only_trained_turns"):
        parents["lengths"] = place / "lengths"
        config["max_length"] = config.get("max_length", 60)
    more = {"deita": {"threshold": 0.9}, "facility_location": {"quality_weight": 0.25}, "k_center": {}}[method]
    config = {"method": method, "budget": budget, "score": "evol", "center": False, **more, **config}
    folders = tuple(place / name for name in reusable)
    settings = {"allow_fewer": True}
    context = StageContext("select", "select", config, settings, parents, work, 0, 1, Progress(None), reusable=folders)
    result = select.run(context)
    (work / "metrics.json").write_text(json.dumps(result.metrics))
    (work / "manifest.json").write_text(json.dumps({"parents": {parent: parent for parent in parents}}))
    return result, content_digest(work)


BUDGETS = [5, 12, {"share": 0.4}, {"tokens": 900}, 60]


def without_reuse(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("walk_")}


def test_a_walk_that_goes_on_gives_what_one_from_the_start_does(tmp_path):
    place = long_run(tmp_path)
    alone = [carry(place, f"alone-{number}", budget) for number, budget in enumerate(BUDGETS)]
    assert [result.metrics["budget_met"] for result, _ in alone] == [True, True, True, True, False]
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [0, 3, 1, 2, 4]):
        seen, before = 0, []
        for number in order:
            result, digest = carry(place, f"with-{number}", BUDGETS[number], before)
            metrics, (expected, digest_alone) = result.metrics, alone[number]
            assert digest == digest_alone
            assert without_reuse(metrics) == without_reuse(expected.metrics)
            assert (metrics["walk_reused_from"] in before) == bool(before)
            assert metrics["walk_rows_reused"] == min(seen, metrics["seen"])
            seen = max(seen, metrics["seen"])
            before.append(f"with-{number}")


def test_a_larger_budget_walks_on_and_a_smaller_one_does_not_walk(tmp_path, monkeypatch):
    place = long_run(tmp_path)
    taken = []
    take = repr_filter._Walk.take

    def counting(walk, positions):
        before = walk.num_seen
        take(walk, positions)
        taken.append(walk.num_seen - before)

    monkeypatch.setattr(repr_filter._Walk, "take", counting)
    middle, _ = carry(place, "middle", 12)
    assert sum(taken) == middle.metrics["seen"]
    small, _ = carry(place, "small", 5, ["middle"])
    assert small.metrics["walk_rows_reused"] == small.metrics["seen"] < middle.metrics["seen"]
    assert sum(taken) == middle.metrics["seen"]
    large, _ = carry(place, "large", 20, ["middle", "small"])
    assert sum(taken) == large.metrics["seen"] > middle.metrics["seen"]  # one pass in all


def test_a_damaged_walk_is_named(tmp_path):
    place = long_run(tmp_path)
    carry(place, "middle", 12)
    shutil.rmtree(place / "middle" / "trace")
    with pytest.raises(UserError, match=r"select: the table of .*middle, whose walk this selection continues, cannot"):
        carry(place, "large", 20, ["middle"])


@pytest.mark.parametrize("method", ["k_center", "facility_location"])
def test_a_smaller_budget_of_an_expensive_method_is_cut(tmp_path, method):
    place = long_run(tmp_path)
    alone = {budget: carry(place, f"alone-{budget}", budget, method=method)[1] for budget in (6, 10)}
    carry(place, "large", 10, method=method)
    small, digest = carry(place, "small", 6, ["large"], method=method)
    assert digest == alone[6]
    assert (small.metrics["walk_reused_from"], small.metrics["walk_rows_reused"]) == ("large", 6)
    large, digest = carry(place, "again", 10, ["small"], method=method)
    assert digest == alone[10]
    assert (large.metrics["walk_reused_from"], large.metrics["walk_rows_reused"]) == (None, 0)


def kept_by_hand(place, name):
    return list(datasets.load_from_disk(str(place / name / "data"))["id"])


def columns_of(place):
    """The scores, the ends of turns and the lengths by id."""
    tables = {
        name: datasets.load_from_disk(str(place / name / "data")) for name in ("complexity", "quality", "lengths")
    }
    scores = [dict(zip(tables[name]["id"], tables[name][f"{name}_scores"], strict=True)) for name in SCORES]
    lengths = tables["lengths"]
    return *scores, dict(zip(lengths["id"], lengths["turn_ends"], strict=True))


def test_tokens_are_counted_up_to_the_context_unless_a_length_is_stated(tmp_path):
    """A context of 30 tokens has the effect of a stated length of 30, and none beside one."""
    place = long_run(tmp_path)
    expected, longer = (
        carry(place, f"stated-{length}", {"tokens": 500}, max_length=length, cut_at_context=False)[1]
        for length in (30, 2048)
    )
    write_readable(place, 30)
    assert carry(place, "default", {"tokens": 500}, max_length=2048)[1] == expected != longer
    assert carry(place, "stated", {"tokens": 500}, max_length=2048, cut_at_context=False)[1] == longer


@pytest.mark.parametrize("score_turns", ["sum", "mean"])
@pytest.mark.parametrize("max_length", [None, 30])
def test_which_turns_count_and_how(tmp_path, score_turns, max_length):
    place = long_run(tmp_path)
    complexity, quality, ends = columns_of(place)
    wanted = {}
    for row in ends:
        within = [turn for turn, end in enumerate(ends[row]) if max_length is None or end <= max_length]
        products = [complexity[row][turn] * quality[row][turn] for turn in within]
        if products:
            wanted[row] = sum(products) / (len(products) if score_turns == "mean" else 1)
    limit = {"only_trained_turns": True, "max_length": max_length} if max_length else {}
    how = {"score_turns": "mean"} if score_turns == "mean" else {}
    result, _ = carry(place, "out", 60, threshold=1.0, **how, **limit)
    assert kept_by_hand(place, "out") == sorted(wanted, key=lambda row: (-wanted[row], row))
    table = datasets.load_from_disk(str(place / "out" / "data"))
    assert dict(zip(table["id"], table["evol_score"], strict=True)) == pytest.approx(wanted)
    assert result.drops == ({"no_scored_turn": 60 - len(wanted)} if max_length else {})
    assert (len(wanted) < 60) == bool(max_length)


def test_a_share_is_of_the_pools_rows_and_not_of_those_that_can_be_ranked(carry_out):
    result, kept, _ = carry_out(method="ifd", budget={"share": 0.5}, column="value")
    assert kept == ["b", "a", "c"]  # half of six, though three cannot be ranked
    assert (result.metrics["budget_wanted"], result.metrics["budget_met"]) == (3, True)


def test_tokens_end_before_the_row_that_would_exceed_them(tmp_path):
    place = long_run(tmp_path)
    *_, ends = columns_of(place)
    carry(place, "whole", 60, threshold=1.0)
    total, wanted = 0, []
    for row in kept_by_hand(place, "whole"):
        if total + min(ends[row][-1], 60) > 500:
            break
        total += min(ends[row][-1], 60)
        wanted.append(row)
    result, _ = carry(place, "tokens", {"tokens": 500}, threshold=1.0)
    assert kept_by_hand(place, "tokens") == wanted
    assert {name: result.metrics[name] for name in ("budget_wanted", "budget_found", "budget_met")} == {
        "budget_wanted": 500, "budget_found": total, "budget_met": True,
    }  # fmt: skip


@pytest.mark.parametrize("budget", [50, {"tokens": 2000}])
def test_a_budget_that_cannot_be_met_names_the_threshold_that_would(tmp_path, budget):
    place = long_run(tmp_path)
    result, _ = carry(place, "few", budget, threshold=0.8)
    found = result.metrics["sufficient_threshold"]
    assert not result.metrics["budget_met"] and 0 < found["walks"] <= 8
    enough, _ = carry(place, "enough", budget, threshold=found["threshold"])
    assert enough.metrics["budget_met"] and "sufficient_threshold" not in enough.metrics
    short, _ = carry(place, "short", budget, threshold=round(found["threshold"] - 0.001, 3))
    assert not short.metrics["budget_met"]
    more, _ = carry(place, "more", 61, threshold=0.8)
    assert more.metrics["sufficient_threshold"] is None


def test_less_than_half_of_the_budget_names_the_threshold_too(carry_out):
    with pytest.raises(UserError) as caught:
        carry_out(
            "complexity", "quality", "embed", method="deita", budget=5, center=False, score="evol", threshold=-0.5
        )
    assert str(caught.value) == (
        "select: only 1 of the budget of 5 rows were found among 5. Similarity to the nearest kept row by quantile: "
        "0: 0.000, 0.1: 0.000, 0.25: 0.000, 0.5: 0.000, 0.75: 0.000, 0.9: 0.000, 1: 0.000. A threshold of 0.000 would "
        "meet the budget (found in 11 walks). Where all similarities are close to 1, centring the embeddings helps "
        "more. Raise select.threshold, lower select.budget, set embedding.center: true, or state "
        "select.allow_fewer: true."
    )


DEITA = {"method": "deita", "budget": 3, "threshold": 0.9, "score": "complexity", "center": False}


def test_a_launch_of_one_process_selects_what_none_selects(carry_out):
    plain = carry_out("complexity", "embed", **DEITA)
    launched = carry_out("complexity", "embed", launch="cpu", **DEITA)
    assert plain[1] == ["f", "e", "d"] and launched == plain
    assert launched[0].device == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_a_gpu_that_torch_does_not_find(carry_out):
    with pytest.raises(UserError, match=r"the launch needs a GPU, and torch finds none\..*select\.launch: cpu"):
        carry_out("complexity", "embed", launch="single_gpu", **DEITA)


def test_a_weighted_score_joins_what_other_stages_made_and_is_written(carry_out, tmp_path):
    weights = {"quality": {"weight": 1.0, "order": "highest"}, "value": {"weight": 2.0, "order": "lowest"}}
    score = {"weights": weights, "scale": "min_max", "combine": "sum"}
    # c has no quality and d no value; of 0.5, 0.75, 1 and 1.5 the lowest are best, and all qualities are equal: 0.5.
    result, kept, _ = carry_out("quality", method="weighted", budget=3, score=score)
    assert kept == ["a", "b", "e"]
    assert result.drops == {"no_weighted_number": 2, "not_selected": 1}
    table = datasets.load_from_disk(str(tmp_path / "work" / "data"))
    assert list(table["selection_score"]) == [2.5, 2.0, 1.5]


def test_limits_leave_rows_out_before_the_method_selects(carry_out):
    # Of 0.25, 0.5, 0.75, 1 and 1.5 the quantiles 0.25 and 0.75 are 0.5 and 1.
    between = {"value": [0.25, 0.75]}
    result, kept, _ = carry_out(method="whole_pool", budget=None, between=between)
    assert kept == ["a", "b", "e"]
    assert result.drops == {"no_limited_number": 1, "outside_limits": 2}


def test_the_longest_response_in_tokens_reads_the_lengths(carry_out, tmp_path):
    counts = {"id": IDS[1:], "num_tokens": [9] * 5, "first_trained": [1] * 5, "turn_ends": [[9]] * 5}
    table = datasets.Dataset.from_dict({**counts, "answer_tokens": [1, 5, 3, 5, 2]})
    table.save_to_disk(str(tmp_path / "lengths" / "data"))
    write_readable(tmp_path, None)
    result, kept, _ = carry_out("lengths", method="longest_response", budget=3, unit="tokens", max_length=4)
    assert kept == ["c", "e", "d"]
    assert result.drops == {"not_trainable": 1, "not_selected": 2}
    table = datasets.load_from_disk(str(tmp_path / "work" / "data"))
    assert list(table["answer_tokens"]) == list(table["selection_score"]) == [5.0, 5.0, 3.0]


def test_strata_share_the_budget_and_the_metrics_count_them(carry_out):
    # x has a, b and e of 0.5, 0.75 and 1 (d has no rating), y has c and f of 0.25 and 1.5.
    result, kept, _ = carry_out(
        method="direct_score", budget=3, column="rating", strata={"by": "group", "share": "equal"}
    )
    assert kept == ["e", "f", "b"]
    assert result.drops == {"no_value": 1, "not_selected": 2}
    assert result.metrics["strata"] == {
        "x": {"rows": 3, "quota": 2, "selected": 2},
        "y": {"rows": 2, "quota": 1, "selected": 1},
    }


def test_strata_share_a_budget_of_tokens(carry_out, tmp_path):
    counts = {"id": IDS, "num_tokens": [10] * 6, "first_trained": [1] * 6, "turn_ends": [[10]] * 6}
    datasets.Dataset.from_dict(counts).save_to_disk(str(tmp_path / "lengths" / "data"))
    write_readable(tmp_path, None)
    # 30 of the tokens in x and 20 of those in y: 18 and 12 of 30, of which one row each fits.
    result, kept, _ = carry_out(
        "lengths",
        method="direct_score",
        budget={"tokens": 30},
        column="rating",
        strata={"by": "group", "share": "proportional"},
        max_length=100,
    )
    assert kept == ["e", "f"]
    assert (result.metrics["budget_found"], result.metrics["budget_met"]) == (20, True)
    assert result.metrics["strata"] == {
        "x": {"rows": 3, "quota": 18, "selected": 1, "tokens": 10},
        "y": {"rows": 2, "quota": 12, "selected": 1, "tokens": 10},
    }


def mean_of_scored_rows(tmp_path):
    """Four scored rows that point four ways, and four without a score far away, which move the mean of the pool."""
    place, ids = tmp_path / "centred", [f"r{number}" for number in range(8)]
    datasets.Dataset.from_dict({"id": ids, "messages": [TURN] * 8}).save_to_disk(str(place / "pool" / "data"))
    scores = {"complexity": [3.0] * 4 + [None] * 4, "quality": [3.0, 3.1, 3.2, 3.3] + [None] * 4}
    for name, of_row in scores.items():
        table = datasets.Dataset.from_dict({"id": ids, f"{name}_scores": [[score] for score in of_row]})
        table.save_to_disk(str(place / name / "data"))
    vectors = [(1, 0.2), (0.1, 1), (-1, 0.3), (0.2, -1), (-30, -30), (-30, -29), (-30, -28), (-30, -27)]
    write_embeddings(place / "embed" / "data", ids, np.array(vectors, dtype=np.float32))
    return place, np.array(vectors, dtype=np.float32).astype(np.float64)


def select_centred(place, parents=("complexity", "quality", "embed"), **config):
    work = place / "work"
    work.mkdir(exist_ok=True)
    places = {name: place / name for name in ("pool", *parents)}
    config = {"center": True, "score": "evol", **config}
    context = StageContext("select", "select", config, {"allow_fewer": True}, places, work, 0, 1, Progress(None))
    return select.run(context), list(datasets.load_from_disk(str(work / "data"))["id"])


def test_center_subtracts_the_mean_of_the_pool_and_not_of_the_rows_with_a_score(tmp_path):
    place, vectors = mean_of_scored_rows(tmp_path)
    # Less the mean of all eight, the four scored rows point almost the same way: only the best is kept.
    centred = vectors[:4] - vectors.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert (unit @ unit[3])[:3].min() > 0.99
    result, kept = select_centred(place, method="deita", budget=4, threshold=0.9)
    assert kept == ["r3"]
    trace = datasets.load_from_disk(str(place / "work" / "trace"))
    nearest = dict(zip(trace["id"], trace["nearest_similarity"], strict=True))
    np.testing.assert_allclose([nearest[f"r{row}"] for row in range(3)], unit[:3] @ unit[3], rtol=0, atol=1e-6)
    assert result.metrics["sufficient_threshold"]["threshold"] == pytest.approx(1.0, abs=0.0021)


@pytest.mark.parametrize("method", ["facility_location", "kmeans", "k_center"])
def test_every_method_that_reads_embeddings_is_given_the_mean_of_the_pool(tmp_path, monkeypatch, method):
    place, vectors = mean_of_scored_rows(tmp_path)
    subtracted = []
    measure = UnitRows.measure.__func__

    def watched(cls, *args, **kwargs):
        found = measure(cls, *args, **kwargs)
        subtracted.append(found.mean)
        return found

    monkeypatch.setattr(UnitRows, "measure", classmethod(watched))
    more = {
        "facility_location": {"quality_weight": 0.5},
        "kmeans": {"clusters": 2, "seed": 0},
        "k_center": {},
    }
    _, kept = select_centred(place, method=method, budget=2, **more[method])
    assert len(kept) == 2
    np.testing.assert_allclose(subtracted[-1], vectors.mean(axis=0), rtol=1e-12)


def test_a_vector_that_is_not_finite_is_named_though_its_row_cannot_be_ranked(tmp_path):
    place, vectors = mean_of_scored_rows(tmp_path)
    vectors[6] = np.nan
    shutil.rmtree(place / "embed")
    write_embeddings(place / "embed" / "data", [f"r{n}" for n in range(8)], vectors.astype(np.float32))
    with pytest.raises(UserError, match=r"1 of 8 embeddings have no direction.*Rows: 'r6'"):
        select_centred(place, method="deita", budget=4, threshold=0.9)


def test_gist_says_why_it_finds_fewer_rows(carry_out):
    gist = {"method": "gist", "center": False, "score": "complexity"}
    result, kept, _ = carry_out("complexity", "embed", budget=4, distance_weight=0.1, **gist)
    assert kept == ["f", "e", "d", "c"]  # all at right angles: further rows cost no distance
    assert result.metrics["budget_met"]
    result.metrics["budget_met"] = False
    assert fewer_than_budget(result.metrics).endswith("more than further rows would (select.distance_weight).")


def test_a_matched_selection_has_as_many_tokens_as_the_other(carry_out, tmp_path):
    counts = {"id": IDS, "num_tokens": [5, 4, 9, 3, 2, 7], "first_trained": [1] * 6, "turn_ends": [[2]] * 6}
    datasets.Dataset.from_dict(counts).save_to_disk(str(tmp_path / "lengths" / "data"))
    write_readable(tmp_path, None)
    datasets.Dataset.from_dict({"id": ["c", "a"]}).save_to_disk(str(tmp_path / "matched" / "data"))
    # c and a have 9 and 5, cut at 6: 11 tokens. By the rating f, e and b have 6, 2 and 4: the third exceeds 11.
    parents = ("lengths", "matched")
    result, kept, _ = carry_out(
        *parents, method="direct_score", column="rating", budget=2, match="tokens", max_length=6, cut_at_context=False
    )
    assert kept == ["f", "e"]
    assert (result.metrics["budget"], result.metrics["budget_found"]) == ({"tokens": 11}, 8)
    datasets.Dataset.from_dict({"id": ["z"]}).save_to_disk(str(tmp_path / "other" / "data"))
    shutil.rmtree(tmp_path / "matched")
    (tmp_path / "other").rename(tmp_path / "matched")
    with pytest.raises(UserError, match="none of the rows that `select` kept can be trained on"):
        carry_out(*parents, method="random", seed=1, budget=2, match="tokens", max_length=6, cut_at_context=False)
