"""Whitening against its definition: in the whitened pool the covariance is the identity; and against PCA by SVD."""

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_recipe import graph, no_gpus, recipe  # noqa: F401

from deita_train.data.embeddings import write_embeddings
from deita_train.errors import UserError
from deita_train.recipe.schema import Recipe
from deita_train.selection.whitening import Whitening
from deita_train.stages.context import Progress, StageContext
from deita_train.stages.selecting import compare
from deita_train.stages.selecting.whitened import PoolEmbeddings


def drawn(seed=0, num_rows=40, width=6, dtype=np.float32):
    """Ids in no order, and rows with a mean and with directions of very different spread."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_rows, width)) * 4.0 ** -np.arange(width) + 3.0
    return [f"r{number}" for number in rng.permutation(num_rows)], rows.astype(dtype)


def whitened(rows, ids, dimensions):
    return Whitening.of_pool(rows, ids, dimensions).apply(rows, ids)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_whitened_pool_has_no_mean_and_the_identity_as_covariance(dtype):
    ids, rows = drawn(dtype=dtype)
    found = whitened(rows, ids, 3).astype(np.float64)
    assert found.shape == (40, 3)
    assert found.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert found.T @ found / 40 == pytest.approx(np.eye(3), abs=1e-4)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_cosines_are_those_of_principal_components_by_svd(seed, dimensions):
    ids, rows = drawn(seed)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left = np.linalg.svd(centred, full_matrices=False)[0][:, :dimensions]  # whitened up to one factor and signs
    found = whitened(rows, ids, dimensions).astype(np.float64)
    assert found @ found.T == pytest.approx(left @ left.T * 40, abs=1e-3)


def test_the_order_of_the_rows_changes_no_bit_and_copies_stay_copies():
    ids, rows = drawn(num_rows=1500)
    rows[1400] = rows[3]
    found = whitened(rows, ids, 4)
    turned = np.random.default_rng(1).permutation(1500)
    assert (whitened(rows[turned], [ids[place] for place in turned], 4) == found[turned]).all()
    assert (found[1400] == found[3]).all()


def test_directions_without_variance_are_left_out():
    ids, rows = drawn(width=3)
    flat = np.concatenate([rows, np.full((40, 2), 7, np.float32)], axis=1)
    assert whitened(flat, ids, 5).shape == (40, 3)
    with pytest.raises(UserError, match="all rows have the same embedding"):
        whitened(np.ones((9, 2), np.float32), ids[:9], 2)


def test_too_few_rows_and_rows_that_are_not_finite():
    ids, rows = drawn(num_rows=7)
    with pytest.raises(UserError, match="7 rows have at most 6 directions, and in 6 of them every row would be as far"):
        whitened(rows, ids, 512)
    rows[2, 1] = np.nan
    with pytest.raises(UserError, match=f"1 of 7 embeddings have no direction.*'{ids[2]}'"):
        whitened(rows, ids, 2)


def test_the_stage_whitens_by_the_whole_pool_and_compares_in_the_same_space(tmp_path):
    ids, rows = drawn(num_rows=12)
    write_embeddings(tmp_path / "embed" / "data", ids, rows)
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    datasets.Dataset.from_dict({"id": ids, "messages": [turn] * 12}).save_to_disk(str(tmp_path / "pool" / "data"))
    datasets.Dataset.from_dict({"id": ids[:4]}).save_to_disk(str(tmp_path / "kept" / "data"))
    parents = {"pool": tmp_path / "pool", "embed": tmp_path / "embed", "select.random": tmp_path / "kept"}
    identity = {"methods": ["random"], "score": None, "max_length": None, "token_column": None, "center": False}
    (tmp_path / "work").mkdir()
    context = StageContext(
        "compare", "compare", {**identity, "whiten": 2}, {}, parents, tmp_path / "work", 0, 1, Progress(None)
    )
    whole = whitened(rows, ids, 2)
    assert (PoolEmbeddings.of(context).rows(ids[5:8]) == whole[5:8]).all()
    unit = whole[:4].astype(np.float64) / np.linalg.norm(whole[:4].astype(np.float64), axis=1, keepdims=True)
    nearest = (unit @ unit.T - 9 * np.eye(4)).max(axis=1).mean()
    found = compare.run(context).metrics["comparison"]["selections"]["random"]["diversity"]["nearest"]["mean"]
    assert found == pytest.approx(nearest, abs=1e-5)


@pytest.mark.usefixtures("no_gpus")
def test_whitening_is_in_the_key_of_what_reads_embeddings(tmp_path):
    plain = graph(tmp_path, recipe(embedding__rows="all"))
    changed = graph(tmp_path, recipe(embedding__whiten=True))
    assert "whiten" not in plain["select"].hashed and changed["select"].hashed["whiten"] == 512
    assert changed["embed"].key == plain["embed"].key and changed["select"].key != plain["select"].key
    told = {"compare__methods": ["random"], "embedding__whiten": True, "embedding__whiten_dimensions": 9}
    compared = graph(tmp_path, recipe(**told))
    assert compared["compare"].hashed["whiten"] == 9
    assert "whiten" not in compared["select.random"].identity


@pytest.mark.parametrize("section", [("embedding", {"model": "a"}), ("embeddings", {"file": "a"})])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"whiten": True, "center": True}, "center would have no effect beside whiten"),
        ({"whiten_dimensions": 4}, "whiten_dimensions would have no effect without whiten"),
    ],
)
def test_what_would_have_no_effect_is_refused(section, fields, message):
    name, stated = section
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"name": "a", name: {**stated, **fields}})
