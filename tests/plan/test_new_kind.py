"""A new kind of stage: through the five places that CONTRIBUTING names, and no other, from a recipe to the store.

They are a field of the recipe, a section of the plan and its entry, the stage's module, and its row of the table.
"""

import sys
from types import ModuleType

import datasets
import pytest
from rich.console import Console
from tiny_recipe import data_lines, no_gpus, recipe, write  # noqa: F401

from deita_train.commands.exports import print_facts
from deita_train.commands.inspection import inspect_row
from deita_train.plan import graph
from deita_train.plan.node import Node
from deita_train.plan.plan import make_plan, planned_stages
from deita_train.recipe import loading
from deita_train.recipe.data_sections import Count, Section
from deita_train.recipe.schema import Recipe
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.context import StageResult
from deita_train.stages.kinds import STAGE_KINDS, ShownRows, StageKind

pytestmark = pytest.mark.usefixtures("no_gpus")
OTHERS = ("base", "scorers", "embedding", "select", "sft", "evaluate")


class LongRows(Section):
    words: Count
    unit: str = "words"


class RecipeWithToy(Recipe):
    long_rows: LongRows | None = None


def add_long_rows(builder, section):
    pool = builder.required("pool", "long_rows", "pool:")
    identity = {"words": section.words, "unit": section.unit}
    builder.add(Node("long_rows", "toy", identity, {"note": "how it runs"}, {"pool": pool}))


def run(context):
    pool = datasets.load_from_disk(str(context.parents["pool"] / "data"))
    long = pool.filter(lambda row: sum(len(m["content"].split()) for m in row["messages"]) > context.identity["words"])
    long.save_to_disk(str(context.data_dir))
    return StageResult(len(pool), len(long), {"short": len(pool) - len(long)}, {"kept": len(long)})


def validate(stage):
    yield f"{stage.label}: more than {stage.identity['words']} {stage.identity['unit']}"


@pytest.fixture
def toy(monkeypatch):
    module = ModuleType("toy_stage")
    module.run, module.validate = run, validate
    monkeypatch.setitem(sys.modules, "toy_stage", module)
    row = StageKind(
        1,
        "toy_stage",
        describe=lambda metrics: f"{metrics['kept']} long rows",
        validations=("toy_stage",),
        implied={"unit": "words"},
    )
    monkeypatch.setitem(STAGE_KINDS, "toy", row)
    monkeypatch.setattr(graph, "SECTIONS", {**graph.SECTIONS, "long_rows": add_long_rows})
    monkeypatch.setattr(loading, "Recipe", RecipeWithToy)


def toy_plan(folder, **changes):
    data = recipe(*OTHERS, **{"long_rows": {"words": 30}} | changes)
    return make_plan(write(folder, data), [], folder / "runs")


def test_a_new_kind_is_planned_validated_made_and_described(tmp_path, toy, capsys):
    made = toy_plan(tmp_path)
    assert [stage.node.id.partition("-")[0] for stage in planned_stages(made)] == ["pool", "toy"]
    assert data_lines(made)[-1] == "long_rows: more than 30 words"
    for node in made.nodes:
        run_stage(made.loaded.path, [], tmp_path / "runs", node.id)
    pool, toy = made.nodes
    lengths = [
        sum(len(message["content"].split()) for message in row["messages"])
        for row in datasets.load_from_disk(str(made.store.path(pool.id) / "data"))
    ]
    kept = sum(length > 30 for length in lengths)
    manifest = made.store.manifest(toy.id)
    assert 0 < kept < len(lengths) == manifest.rows_in
    assert (manifest.kind, manifest.rows_out, manifest.drops) == ("toy", kept, {"short": len(lengths) - kept})
    assert [stage.status for stage in planned_stages(toy_plan(tmp_path))] == ["done", "done"]
    capsys.readouterr()
    print_facts(made, Console())
    assert capsys.readouterr().out == f"long_rows: {kept} long rows\n"


def test_its_fields_count_in_the_key_as_the_table_says(tmp_path, toy):
    def key(**section):
        return toy_plan(tmp_path, long_rows=section).cells[0].nodes["long_rows"].key

    assert key(words=30) == key(words=30, unit="words") != key(words=30, unit="lines")
    assert key(words=31) != key(words=30)


def test_inspect_shows_its_rows_in_the_form_that_the_table_names(tmp_path, toy, monkeypatch):
    from deita_train.errors import UserError

    with pytest.raises(UserError, match="has no stage that gives rows to a model"):
        inspect_row(toy_plan(tmp_path), None, None)
    shown = ShownRows("conversation", "measured", "measured is nothing else")
    monkeypatch.setitem(STAGE_KINDS, "toy", StageKind(1, "toy_stage", rows=shown))
    with pytest.raises(UserError, match=r"--stage sft: .* it has long_rows\."):
        inspect_row(toy_plan(tmp_path), "sft", None)
