"""Which stages look for benchmarks' questions in which data, and that nothing else changes."""

import json

import pytest
from tiny_recipe import dpo_recipe, graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan.graph import SECTIONS as GRAPH
from deita_train.plan.node import Node
from deita_train.plan.sections import evaluate
from deita_train.recipe.loading import load_recipe
from deita_train.stages.kinds import STAGE_KINDS as KINDS

pytestmark = pytest.mark.usefixtures("no_gpus")

JUDGE = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}


@pytest.fixture
def sets(tmp_path):
    """Changes of a recipe that give it MT-Bench and questions of its own; and a file of prompts."""
    for name in ("mt", "own", "prompts"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": f"{name}: what is to be answered here?"}) + "\n")
    return {
        "llm__judge": JUDGE,
        "evaluate__mt_bench": {"questions": {"dataset": str(tmp_path / "mt.jsonl")}, "judge": "judge"},
        "evaluate__judged": {"questions": {"dataset": str(tmp_path / "own.jsonl")}, "judge": "judge"},
    }


def of_contamination(nodes):
    return {
        label: {role: parent.label for role, parent in node.parents.items()}
        for label, node in nodes.items()
        if node.kind == "contamination"
    }


BENCHMARKS = {"questions.mt_bench": "questions.mt_bench", "questions.judged": "questions.judged"}


def test_all_data_is_looked_through_for_every_benchmark(tmp_path, sets):
    nodes = graph(tmp_path, dpo_recipe(**sets))
    assert of_contamination(nodes) == {
        f"contamination.{name}": {"data": label, **BENCHMARKS}
        for name, label in (
            ("pool", "pool"),
            ("selected", "select"),
            ("dpo_data", "dpo_data"),
            ("heldout", "heldout_data"),
        )
    }
    assert nodes["contamination.pool"].hashed == {
        "benchmarks": {"questions.mt_bench": "mt_bench", "questions.judged": "judged"}
    }
    without = graph(tmp_path, dpo_recipe(**sets, evaluate__contamination=False))
    assert of_contamination(without) == {}
    for label in without.keys() & graph(tmp_path, dpo_recipe()).keys():
        assert without[label].key == nodes[label].key == graph(tmp_path, dpo_recipe())[label].key


def test_the_data_of_sft_alone(tmp_path, sets):
    rows = {"builtin": "quickstart", "rows": 8}
    changes = {"sft__data": rows, "evaluate__heldout": None}
    nodes = graph(tmp_path, recipe("pool", "scorers", "embedding", "select", **sets, **changes))
    assert of_contamination(nodes) == {"contamination.sft_data": {"data": "sft_data", **BENCHMARKS}}


def test_documents_of_tasks_are_read_once(tmp_path, monkeypatch):
    """The stages `lm_eval.<model>` have the documents; the first one is read."""

    def add(builder, section):
        for name in ("base", "sft"):
            builder.add(Node(f"lm_eval.{name}", "lm_eval", {"model": name}, {}))
        evaluate.add_contamination(builder, section)

    monkeypatch.setattr("deita_train.plan.graph.SECTIONS", {"pool": GRAPH["pool"], "evaluate": add})
    monkeypatch.setitem(KINDS, "lm_eval", KINDS["compare"])
    changes = {"evaluate__lm_eval": {"tasks": ["arc_easy"]}, "evaluate__heldout": None}
    nodes = graph(tmp_path, recipe(**changes))
    assert of_contamination(nodes) == {"contamination.pool": {"data": "pool", "lm_eval": "lm_eval.base"}}
    assert nodes["contamination.pool"].identity == {"benchmarks": {"lm_eval": None}}


def test_nothing_without_a_benchmark_or_data(tmp_path, sets):
    assert of_contamination(graph(tmp_path, recipe())) == {}
    changes = {"evaluate__heldout": None, "evaluate__model": "base", **sets}
    without_data = recipe("pool", "scorers", "embedding", "select", "sft", **changes)
    assert of_contamination(graph(tmp_path, without_data)) == {}
    with pytest.raises(UserError, match=r"evaluate\.contamination: there is no data to look for questions in"):
        graph(tmp_path, {**without_data, "evaluate": {**without_data["evaluate"], "contamination": True}})
    with pytest.raises(UserError, match="contamination: would have no effect without a benchmark"):
        plan(tmp_path, recipe(evaluate__contamination=True))


def test_a_selection_reads_what_it_must_not_keep(tmp_path, sets):
    file = str(tmp_path / "prompts.jsonl")
    nodes = graph(tmp_path, recipe(**sets, select__decontaminate=["mt_bench", file]))
    assert nodes["select"].parents["contamination"] is nodes["decontaminate"]
    assert of_contamination(nodes)["decontaminate"] == {
        "data": "pool", "questions.mt_bench": "questions.mt_bench", "questions.file1": "questions.file1",
    }  # fmt: skip
    assert nodes["decontaminate"].hashed["benchmarks"] == {
        "questions.mt_bench": "mt_bench",
        "questions.file1": "prompts",
    }
    plain = graph(tmp_path, recipe(**sets))
    changed = {label for label in plain if plain[label].key != nodes[label].key}
    asked = {"generate.mt_bench.sft", "generate.judged.sft", "mt_bench.sft", "judged.sft"}
    assert changed == {"embed", "select", "sft", "evaluate.sft", "contamination.selected", *asked}
    assert nodes["select"].hashed == plain["select"].hashed and "contamination" not in plain["select"].parents


def test_all_benchmarks_named_are_one_stage_with_that_of_the_pool(tmp_path, sets):
    nodes = graph(tmp_path, recipe(**sets, select__decontaminate=["mt_bench", "judged"]))
    assert nodes["decontaminate"].key == nodes["contamination.pool"].key


def test_every_method_and_every_compared_one(tmp_path, sets):
    changes = {"compare__methods": ["random"], "select__decontaminate": ["judged"]}
    nodes = graph(tmp_path, recipe(**sets, **changes))
    assert {nodes[label].parents["contamination"].key for label in ("select", "select.random")} == {
        nodes["decontaminate"].key
    }


def test_a_sweep_keeps_it_also_for_the_whole_pool(tmp_path, sets):
    data = recipe(**sets, select__decontaminate=["judged"], sweep={"select.budget": [5, 6], "whole_pool": True})
    cells = plan(tmp_path, data).cells
    assert len(cells) == 4
    assert {cell.nodes["select"].parents["contamination"].key for cell in cells} == {
        cells[0].nodes["decontaminate"].key
    }
    loaded = load_recipe(tmp_path / "recipe.yaml", [])
    assert loaded.cells[-1].recipe.select.model_dump(exclude_defaults=True) == {
        "method": "whole_pool", "decontaminate": ["judged"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"select__decontaminate": ["mt_bench"]},
            r"select\.decontaminate\.0: mt_bench is the question set of evaluate\.mt_bench, which the recipe has not",
        ),
        ({"select__decontaminate": ["nothing/here.jsonl"]}, r"decontaminate\.0: nothing/here\.jsonl does not exist"),
        ({"select__decontaminate": ["judged", "judged"]}, "judged, judged: name each once"),
        ({"select__decontaminate": []}, "decontaminate"),
    ],
)
def test_what_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        plan(tmp_path, recipe(**changes))
