"""Which rows a recipe embeds, what is refused, and what counts in the keys."""

import re

import pytest
from tiny_recipe import graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError

pytestmark = pytest.mark.usefixtures("no_gpus")
TOKENS = {"tokens": 900}
READ_ALL = [
    ({"embedding__center": True}, "embedding.center subtracts the mean of all rows"),
    ({"embedding__whiten": True}, "embedding.whiten reads the embeddings of all rows"),
    ({"select__method": "kmeans"}, "select.method kmeans reads the embeddings of all rows"),
    ({"select__method": "k_center"}, "select.method k_center reads the embeddings of all rows"),
    (
        {"select__method": "target", "select__target": {"builtin": "quickstart", "rows": 5}},
        "select.method target reads the embeddings of all rows",
    ),
    (
        {"select__strata": {"by": "source"}},
        "select.strata walks each part of the pool by itself, to a budget that depends on all of them",
    ),
    (
        {"select__strata": {"by": "embedding_clusters"}},
        "select.strata walks each part of the pool by itself, to a budget that depends on all of them",
    ),
    ({"compare": {"methods": ["random"]}}, "compare: measures the whole pool"),
]


def embed(folder, **changes):
    return graph(folder, recipe(**changes))["embed"]


@pytest.mark.parametrize(("changes", "reader"), READ_ALL)
def test_all_rows_are_embedded_where_something_reads_all(tmp_path, changes, reader):
    plain = embed(tmp_path, **changes)
    assert "walk" not in plain.identity and "walk" not in plain.runtime and set(plain.parents) == {"pool", "model"}
    assert embed(tmp_path, embedding__rows="all", **changes).key == plain.key
    with pytest.raises(UserError) as caught:
        graph(tmp_path, recipe(embedding__rows="walked", **changes))
    assert re.sub(r"^.*embedding.rows: ", "", str(caught.value)) == (
        f"walked embeds only the rows that select.method deita looks at, and {reader}. State rows: all, or leave rows "
        "out."
    )


def test_a_recipe_that_selects_nothing_embeds_all_rows(tmp_path):
    assert "walk" not in graph(tmp_path, recipe("select", "sft", "evaluate"))["embed"].identity
    with pytest.raises(UserError, match=r"and the recipe has no select: that would walk. State rows: all"):
        graph(tmp_path, recipe("select", "sft", "evaluate", embedding__rows="walked"))


def test_the_walk_is_followed_where_nothing_else_reads_embeddings(tmp_path):
    nodes = graph(tmp_path, recipe())
    node = nodes["embed"]
    assert node.identity["walk"] == nodes["select"].hashed and node.runtime["walk"] == nodes["select"].identity
    assert set(node.parents) == {"pool", "model", "complexity", "quality"}
    assert nodes["select"].parents["embed"] is node
    assert list(nodes).index("score.quality") < list(nodes).index("embed") < list(nodes).index("select")
    assert embed(tmp_path, embedding__rows="walked").key == node.key
    tokens = graph(tmp_path, recipe(select__budget=TOKENS))
    assert list(tokens).index("lengths") < list(tokens).index("embed") < list(tokens).index("select")
    assert "lengths" in tokens["embed"].parents


def test_the_rows_embedded_follow_from_all_that_decides_the_walk(tmp_path):
    plain = embed(tmp_path).key
    changes = (
        {"select__budget": 9}, {"select__threshold": 0.8}, {"select__score": "quality"}, {"select__budget": TOKENS},
        {"scorers__quality__max_length": 99}, {"select__between": {"quality": [0.1, 0.9]}}, {"embedding__rows": "all"},
        {"select__only_trained_turns": True},
    )  # fmt: skip
    keys = [embed(tmp_path, **change).key for change in changes]
    assert len({plain, *keys}) == len(changes) + 1
    assert embed(tmp_path, select__allow_fewer=True, select__launch="cpu_ddp").key == plain


def test_the_selection_has_one_key_whichever_rows_are_embedded(tmp_path):
    walked, whole = (graph(tmp_path, recipe(embedding__rows=rows)) for rows in ("walked", "all"))
    assert walked["embed"].key != whole["embed"].key
    for label in ("select", "sft", "evaluate.sft"):
        assert walked[label].key == whole[label].key
    # All rows have the key that they have where no walk is: how batches are planned changes rounding alone.
    assert whole["embed"].key == embed(tmp_path, select__method="kmeans").key
    assert whole["embed"].runtime["walk"] == whole["select"].identity and "walk" not in whole["embed"].identity
    assert set(whole["embed"].decisive) == {"pool", "model"} != set(whole["embed"].parents)


def test_a_sweep_over_methods_embeds_for_those_that_read_embeddings(tmp_path):
    made = plan(tmp_path, recipe(sweep={"select.method": ["random", "kmeans"], "whole_pool": True}))
    walked, whole = [node for node in made.nodes if node.kind == "embed"]
    assert "walk" in walked.identity and "walk" not in whole.identity
    assert [cell.label for cell in made.owners(walked)] == ["base run"] and len(made.owners(whole)) == 3
    made = plan(tmp_path, recipe(sweep={"select.method": ["random"], "whole_pool": True}))
    assert [cell.label for cell in made.cells if "embed" in cell.nodes] == ["base run"]
    # Where no cell reads one it stays, and the plan says that it is not read.
    alone = plan(tmp_path, recipe(select__method="random", sweep={"select.budget": [3, 4]}))
    assert len([node for node in alone.nodes if node.kind == "embed"]) == 1


def test_a_sweep_may_state_walked_for_the_methods_that_read_none(tmp_path):
    made = plan(tmp_path, recipe(embedding__rows="walked", sweep={"select.method": ["random"]}))
    assert [cell.label for cell in made.cells if "embed" in cell.nodes] == ["base run"]
    with pytest.raises(UserError, match=r"embedding.rows: walked .* kmeans reads the embeddings of all rows"):
        plan(tmp_path, recipe(embedding__rows="walked", sweep={"select.method": ["kmeans"]}))


def test_given_embeddings_are_read_as_they_are(tmp_path):
    (tmp_path / "vectors.jsonl").write_text('{"id": "a", "embedding": [1.0]}\n')
    nodes = graph(tmp_path, recipe("embedding", embeddings={"file": str(tmp_path / "vectors.jsonl")}))
    assert nodes["select"].parents["embed"] is nodes["embeddings"] and not nodes["select"].counts_as
