"""Embedding only what the walk looks at: the selection is byte for byte that of embedding everything."""

import datasets
import numpy as np
import pytest
from tiny_recipe import no_gpus  # noqa: F401
from walked_recipe import carried_out, small_groups, walked_recipe

from deita_train.data.embeddings import embeddings_of

pytestmark = pytest.mark.usefixtures("no_gpus")


@pytest.fixture(autouse=True)
def groups(monkeypatch):
    for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    small_groups(monkeypatch)


def made_of(made, cell=0):
    """The manifests and metrics of a cell's embedding and selection."""
    nodes = made.cells[cell].nodes
    return {
        label: (made.store.manifest(nodes[label].id), made.store.metrics(nodes[label].id))
        for label in ("embed", "select")
    }


def vectors(made, cell=0):
    folder = made.store.path(made.cells[cell].nodes["embed"].id) / "data"
    ids = list(datasets.load_from_disk(str(folder))["id"])
    return dict(zip(ids, embeddings_of(folder, ids), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"select__budget": 1},
        {"select__budget": {"share": 0.2}},
        {"select__budget": {"tokens": 900}, "select__read_as": {"tokenizer": "MODEL", "max_length": 40}},
        {"select__threshold": 0.9},
        {"select__threshold": 1.0},
        {"select__score": "quality", "select__between": {"complexity": [0.1, 0.9]}},
        {"embedding__storage": "float16", "embedding__pooling": "mean"},
    ],
)
def test_the_selection_is_that_of_embedding_everything(tmp_path, changes):
    data = walked_recipe(tmp_path, **changes)
    if "select__read_as" in changes:
        data["select"]["read_as"]["tokenizer"] = str(tmp_path / "model")
    walked, whole = carried_out(tmp_path / "a", data), carried_out(tmp_path / "b", with_rows(data, "all"))
    (few, found), (many, of_all) = made_of(walked)["embed"], made_of(whole)["embed"]
    lazily, eagerly = made_of(walked)["select"], made_of(whole)["select"]
    assert lazily[0].content_digest == eagerly[0].content_digest
    assert lazily[0].key == eagerly[0].key and few.key != many.key
    assert lazily[1] == eagerly[1]
    assert many.rows_out == of_all["rows"] == 120
    assert few.rows_in == 120 and few.rows_out == found["rows_embedded"] == 120 - found["rows_saved"]
    assert found["rows_seen"] == lazily[1]["seen"] <= found["rows_embedded"]
    every = vectors(whole)
    assert all(np.array_equal(vector, every[row_id]) for row_id, vector in vectors(walked).items())


def with_rows(data, rows):
    return {**data, "embedding": {**data["embedding"], "rows": rows}}
