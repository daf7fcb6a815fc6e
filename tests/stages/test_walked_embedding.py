"""Embedding only what the walk looks at: the selection is byte for byte that of embedding everything."""

import datasets
import numpy as np
import pytest
from tiny_recipe import no_gpus  # noqa: F401
from walked_recipe import carried_out, small_groups, vectors, walked_recipe, with_rows

from deita_train.errors import UserError
from deita_train.stages.facts import saved_rows
from deita_train.stages.inference import embed

pytestmark = pytest.mark.usefixtures("no_gpus")
ROWS = 120


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    small_groups(monkeypatch)


def of(made, label, cell=0):
    """The manifest and the metrics of a cell's stage."""
    node = made.cells[cell].nodes[label]
    return made.store.manifest(node.id), made.store.metrics(node.id)


def check_equal(walked, whole, cell=0):
    """The selection is the same, and so is each vector; returns the metrics of the embedding along the walk."""
    (few, found), (many, of_all) = of(walked, "embed", cell), of(whole, "embed", cell)
    lazily, eagerly = of(walked, "select", cell), of(whole, "select", cell)
    assert lazily[0].content_digest == eagerly[0].content_digest and lazily[0].key == eagerly[0].key
    reused = ("walk_reused_from", "walk_rows_reused")
    assert [lazily[1][name] for name in lazily[1] if name not in reused] == [
        eagerly[1][name] for name in eagerly[1] if name not in reused
    ]
    assert many.rows_out == of_all["rows"] == found["rows"] == ROWS
    assert few.rows_in == ROWS and few.rows_out == found["rows_embedded"] == ROWS - found["rows_saved"]
    assert found["rows_seen"] <= found["rows_embedded"]
    every = vectors(whole, cell)
    assert all(np.array_equal(vector, every[row_id]) for row_id, vector in vectors(walked, cell).items())
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"select__threshold": 0.9, "select__score": "quality", "select__between": {"complexity": [0.1, 0.9]}},
        {"embedding__storage": "float16", "embedding__pooling": "mean", "select__threshold": 1.0},
    ],
)
def test_the_selection_is_that_of_embedding_everything(tmp_path, changes):
    data = walked_recipe(tmp_path, ROWS, **changes)
    walked, whole = carried_out(tmp_path / "a", data), carried_out(tmp_path / "b", with_rows(data, "all"))
    found = check_equal(walked, whole)
    assert found["rows_seen"] == of(walked, "select")[1]["seen"]
    assert found["rows_saved"] > 0 and found["tokens"] < of(whole, "embed")[1]["tokens"]
    assert of(walked, "embed")[0].key != of(whole, "embed")[0].key


BUDGETS = [12, 1, {"share": 0.2}, {"tokens": 900}, 30, 500]


@pytest.mark.parametrize(("reuse_rows", "budgets"), [(True, BUDGETS), (False, [12, 1, {"tokens": 900}, 500])])
def test_a_sweep_over_budgets_shares_what_is_embedded_and_continues_its_walks(tmp_path, reuse_rows, budgets):
    data = walked_recipe(
        tmp_path, ROWS, embedding__reuse_rows=reuse_rows, select__allow_fewer=True,
        select__read_as={"tokenizer": "base", "max_length": 150}, sweep={"select.budget": budgets[1:]},
    )  # fmt: skip
    data["select"]["read_as"]["tokenizer"] = str(tmp_path / "model")
    walked, whole = carried_out(tmp_path / "a", data), carried_out(tmp_path / "b", with_rows(data, "all"))
    embedded = [check_equal(walked, whole, cell) for cell in range(len(budgets))]
    numbers = [found["rows_embedded"] for found in embedded]
    assert numbers[1] == 8 and numbers[-1] == ROWS and saved_rows(of(walked, "embed", len(budgets) - 1)[0]) is None
    selections = [of(walked, "select", cell)[1] for cell in range(len(budgets))]
    assert [metrics["budget_met"] for metrics in selections] == [True] * (len(budgets) - 1) + [False]
    # Each goes on from the walk that saw the most rows before it.
    seen = np.maximum.accumulate([metrics["seen"] for metrics in selections])
    expected = [0, *(min(int(most), of["seen"]) for most, of in zip(seen, selections[1:], strict=False))]
    assert [metrics["walk_rows_reused"] for metrics in selections] == expected
    before = [0, *np.maximum.accumulate(numbers)[:-1].tolist()]
    reused = [min(number, there) for number, there in zip(numbers, before, strict=True)]
    assert [found["rows_reused"] for found in embedded] == (reused if reuse_rows else [0] * len(budgets))


def test_what_the_template_refuses_is_left_out_of_the_walk(tmp_path):
    data = walked_recipe(tmp_path, ROWS, embedding__max_refused_share=0.8, embedding__chat_template=None)
    template = "{% for message in messages %}{% if 'twelve' in message.content %}{{ raise_exception('no') }}{% endif %}"
    (tmp_path / "own.jinja").write_text(template + "{{ message.role }}: {{ message.content }}\n{% endfor %}")
    data["embedding"]["chat_template"] = str(tmp_path / "own.jinja")
    walked, whole = carried_out(tmp_path / "a", data), carried_out(tmp_path / "b", with_rows(data, "all"))
    (few, found), (many, _) = of(walked, "embed"), of(whole, "embed")
    lazily, eagerly = of(walked, "select")[0], of(whole, "select")[0]
    assert lazily.content_digest == eagerly.content_digest and lazily.drops == eagerly.drops
    assert lazily.drops["not_embedded"] == sum(many.drops.values()) > 0
    assert {**few.drops, "not_reached": None} == {**many.drops, "not_reached": None}
    assert found["rows_embedded"] + found["rows_saved"] + sum(many.drops.values()) == ROWS
    trace = datasets.load_from_disk(str(walked.store.path(few.id) / "trace"))
    assert len(trace) == ROWS and trace["not_embedded"].count(None) == few.rows_out


def test_a_row_without_direction_is_refused_if_the_walk_reaches_it(tmp_path, monkeypatch):
    data = walked_recipe(tmp_path, ROWS)
    monkeypatch.setitem(embed._POOLINGS, "last_token", lambda *given: embed.last_hidden_states(*given) * 0)
    with pytest.raises(UserError, match="16 of 16 embeddings have no direction to compare"):
        carried_out(tmp_path / "a", data)
