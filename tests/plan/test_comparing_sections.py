"""The stages of `compare:` and how they read the fields of `select:`."""

import pytest
from pydantic import ValidationError
from tiny_recipe import graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.recipe.schema import Compare

pytestmark = pytest.mark.usefixtures("no_gpus")


def compared(folder, *without, **changes):
    changes = {"compare__methods": ["random", "k_center"], **changes}
    return graph(folder, recipe(*without, **changes))


def test_what_the_comparison_reads(tmp_path):
    nodes = compared(tmp_path, compare__max_length=100)
    node = nodes["compare"]
    assert {name: parent.label for name, parent in node.parents.items()} == {
        "pool": "pool",
        "select.deita": "select",
        "select.random": "select.random",
        "select.k_center": "select.k_center",
        "complexity": "score.complexity",
        "quality": "score.quality",
        "embed": "embed",
    }
    assert node.hashed == {
        "methods": ["deita", "random", "k_center"], "score": "evol", "max_length": 100, "token_column": None,
        "center": False,
    }  # fmt: skip
    assert nodes["select.random"].identity == {"method": "random", "budget": 10, "seed": 7}


def test_its_selections_are_those_of_the_methods_alone(tmp_path):
    nodes = compared(tmp_path)
    for method in ("random", "k_center"):
        alone = graph(tmp_path, recipe(select__method=method))["select"]
        assert nodes[f"select.{method}"].key == alone.key
    assert nodes["select"].key == graph(tmp_path, recipe())["select"].key


def test_without_scores_and_embeddings(tmp_path):
    nodes = compared(tmp_path, "scorers", "embedding", select__method="random", compare__methods=["longest_response"])
    assert list(nodes["compare"].parents) == ["pool", "select.random", "select.longest_response"]
    assert nodes["compare"].identity["score"] is None and "center" not in nodes["compare"].identity


def test_one_dimension_gives_the_mean_score(tmp_path):
    nodes = compared(tmp_path, scorers__complexity=None, select__score="quality")
    assert nodes["compare"].identity["score"] == "quality" and "complexity" not in nodes["compare"].parents
    other = compared(tmp_path, scorers__complexity=None, select__method="random", compare__methods=["quality"])
    assert other["compare"].identity["score"] == "quality"


def test_each_method_has_its_column(tmp_path):
    changes = {"select__method": "instag", "select__column": "tags", "compare__methods": ["mig", "ifd", "perplexity"]}
    nodes = compared(tmp_path, **changes, compare__columns={"ifd": "c"}, perplexity={"model": "base"})
    columns = {label: node.identity["column"] for label, node in nodes.items() if node.kind == "select"}
    assert columns == {
        "select": "tags", "select.mig": "tags", "select.ifd": "c", "select.perplexity": "perplexity",
    }  # fmt: skip
    assert "perplexity" not in nodes["select.ifd"].parents and "perplexity" in nodes["select.perplexity"].parents


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare__methods": ["deita"]}, "r.yaml: compare: deita is the method of the selection itself"),
        ({"select__method": "whole_pool", "select__budget": None}, "compare: select.method whole_pool keeps every row"),
        (
            {"compare__methods": ["ifd"]},
            "compare.columns.ifd: method ifd needs perplexity:, which measures it, or compare.columns.ifd: with",
        ),
        (
            {"compare__methods": ["kmeans"], "select__budget": {"tokens": 100}},
            "compare: kmeans takes no budget of tokens; state a number of rows or a share",
        ),
        ({"compare__columns": {"random": "c"}}, "compare: columns.random: random reads no column; leave it out"),
        (
            {"compare__methods": ["ifd", "mig"], "select__column": "c"},
            "compare: ifd and mig would all read select.column c; name the column of each",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        compared(tmp_path, **changes)


def test_the_mean_score_is_of_what_the_selection_ranks_by(tmp_path):
    assert compared(tmp_path)["compare"].identity["score_turns"] == "sum"
    assert compared(tmp_path, select__score_turns="mean")["compare"].identity["score_turns"] == "mean"


def test_a_comparison_without_a_selection_is_refused(tmp_path):
    with pytest.raises(UserError, match="compare: needs select:, and the recipe has none"):
        compared(tmp_path, "select", "sft", "evaluate")


def test_a_field_may_serve_a_compared_method_alone(tmp_path):
    data = recipe(select__method="random", select__threshold=0.8, compare__methods=["deita"])
    assert plan(tmp_path, data).cells[0].nodes["select.deita"].identity["threshold"] == 0.8


def test_the_cells_of_a_sweep_have_no_comparison_and_share_its_selections(tmp_path):
    data = recipe(compare__methods=["random"], sweep={"select.method": ["random"]})
    base, cell = plan(tmp_path, data).cells
    assert "compare" in base.nodes and "compare" not in cell.nodes
    assert cell.nodes["select"].id == base.nodes["select.random"].id
    with pytest.raises(UserError, match="a sweep's cells have no compare:; leave it out"):
        plan(tmp_path, recipe(compare__methods=["random"], sweep={"compare.max_length": [1, 2]}))


def test_each_seed_is_a_selection_of_its_own(tmp_path):
    changes = {"compare__methods": ["random", "longest_response"], "compare__seeds": [7, 8]}
    nodes = compared(tmp_path, **changes)
    node = nodes["compare"]
    assert node.hashed["methods"] == ["deita", "random seed 7", "random seed 8", "longest_response"]
    assert node.hashed["seeded"] == {"random": ["random seed 7", "random seed 8"]}
    assert [nodes[f"select.random seed {seed}"].identity["seed"] for seed in (7, 8)] == [7, 8]
    assert nodes["select.random seed 7"].key == compared(tmp_path)["select.random"].key


def test_the_recipes_own_selection_is_one_of_its_seeds(tmp_path):
    nodes = compared(tmp_path, select__method="kmeans", compare__methods=["longest_response"], compare__seeds=[7, 1])
    assert nodes["compare"].hashed["seeded"] == {"kmeans": ["kmeans", "kmeans seed 1"]}  # the recipe's seed is 7
    with pytest.raises(UserError, match=r"compare\.seeds: would have no effect, because none of deita, k_center draws"):
        compared(tmp_path, compare__methods=["k_center"], compare__seeds=[1])


def test_matched_selections_read_the_tokens_of_the_recipes_own(tmp_path):
    nodes = compared(tmp_path, compare__match="tokens")
    node = nodes["select.random"]
    assert {name: parent.label for name, parent in node.parents.items()} == {
        "pool": "pool", "lengths": "lengths", "matched": "select",
    }  # fmt: skip
    assert (node.hashed["match"], node.hashed["budget"], node.hashed["max_length"]) == ("tokens", 10, 2048)
    assert nodes["select"].key == compared(tmp_path)["select"].key
    assert nodes["compare"].hashed["trained"] == {"max_length": 2048, "cut_at_context": True}
    divided = compared(tmp_path, compare__match="tokens", select__strata={"by": "source"})["select.random"]
    assert divided.hashed["match"] == "tokens" and divided.hashed["strata"]["by"] == "source"
    counted = compared(tmp_path, compare__count_tokens=True)
    assert "matched" not in counted["select.random"].parents and "lengths" in counted["compare"].parents


def test_tokens_are_read_as_the_recipe_says(tmp_path):
    told = {"select__read_as": {"tokenizer": "base"}, "compare__methods": ["random"], "compare__match": "tokens"}
    cells = plan(tmp_path, recipe("sft", "evaluate", **told)).cells
    assert "lengths" in cells[0].nodes
    with pytest.raises(UserError, match="compare: counts tokens as SFT reads them, and no sft:"):
        compared(tmp_path, "sft", "evaluate", compare__count_tokens=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare__methods": ["kmeans"]}, "compare: kmeans takes no budget of tokens"),
        ({"select__budget": {"tokens": 9}}, "compare: match: tokens would have no effect beside a select.budget of"),
    ],
)
def test_tokens_that_cannot_be_matched(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        compared(tmp_path, compare__match="tokens", **changes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_column": "t", "match": "tokens"}, "token_column: tokens are counted as SFT reads the rows"),
        ({"seeds": [1, 2, 1]}, "names one twice"),
        ({"mean_of": ["a", "b", "a"]}, "mean_of: a, b, a names one twice"),
    ],
)
def test_fields_that_contradict_each_other(fields, message):
    with pytest.raises(ValidationError, match=message):
        Compare.model_validate({"methods": ["random"], **fields})
