"""The stage `select` with methods that read a column or embeddings: what is left out and counted, and the trace."""

import datasets
import numpy as np
import pytest
import torch

from deita_train.data.embeddings import write_embeddings
from deita_train.errors import UserError
from deita_train.run.launch import resolve_launch
from deita_train.stages import select
from deita_train.stages.context import Progress, StageContext

IDS = list("abcdef")
# d has no number, e is at 1, f above it; a and d have no tags.
VALUES = [0.5, 0.75, 0.25, None, 1.0, 1.5]
TAGS = [[], ["x"], ["x", "y"], None, ["y"], ["z"]]
TURN = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
# c has no quality at all.
SCORES = {"complexity": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "quality": [1.0, 1.0, None, 1.0, 1.0, 1.0]}


@pytest.fixture
def carry_out(tmp_path):
    """A function that carries the stage out and gives its result, the kept ids and the trace by id."""
    columns = {"id": IDS, "messages": [TURN] * 6, "value": VALUES, "tags": TAGS, "rating": VALUES}
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
    assert ranks == {"a": 1, "b": 0, "c": None}
    assert result.drops == {"no_value": 1, "ifd_not_below_one": 2, "not_selected": 1}
    assert (result.rows_in, result.rows_out) == (6, 2)
    assert result.metrics["columns"] == {}  # a mean over rows without a value would be of other rows


def test_a_rating_is_not_bounded(carry_out):
    result, kept, _ = carry_out(method="direct_score", budget=5, column="rating")
    assert kept == ["f", "e", "b", "a", "c"]
    assert result.drops == {"no_value": 1}


def test_tags_of_lists(carry_out):
    result, kept, ranks = carry_out(method="instag", budget=3, column="tags")
    assert kept == ["c", "f", "b"]  # x and y, then z; the second round begins with b's x
    assert ranks == {"b": 2, "c": 0, "e": None, "f": 1}
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
        "select: only 3 of the budget of 7 rows were found among 3 (1 have no number in the column, 2 have an IFD of 1 "
        "or more). Add rows to the pool, lower select.budget, or allow_fewer: true."
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


def test_a_missing_column_is_told(carry_out):
    with pytest.raises(UserError, match="the pool has no column 'ratings' for the method to read; it has id, messages"):
        carry_out(method="direct_score", budget=1, column="ratings")


DEITA = {"method": "deita", "budget": 3, "threshold": 0.9, "score": "complexity", "center": False}


def test_a_launch_of_one_process_selects_what_none_selects(carry_out):
    plain = carry_out("complexity", "embed", **DEITA)
    launched = carry_out("complexity", "embed", launch="cpu", **DEITA)
    assert plain[1] == ["f", "e", "d"] and launched == plain
    assert launched[0].device == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_a_gpu_that_torch_does_not_find(carry_out):
    with pytest.raises(UserError, match=r"the launch wants a GPU, and torch finds none\..*select\.launch: cpu"):
        carry_out("complexity", "embed", launch="single_gpu", **DEITA)
