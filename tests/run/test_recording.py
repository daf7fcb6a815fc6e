"""The recipe that a run keeps as it was stated: running it is running the same again."""

import pytest
from recipe_files import RECIPES, files_below
from tiny_recipe import no_gpus, plan, recipe  # noqa: F401

from deita_train.plan.cost.costs import run_cost
from deita_train.plan.plan import make_plan
from deita_train.recipe.loading import load_data
from deita_train.recipe.yaml_text import to_yaml
from deita_train.run.recording import write_record
from deita_train.store.run_record import STATED_RECIPE


@pytest.mark.usefixtures("no_gpus")
def test_the_stated_recipe_of_a_run_is_planned_to_the_same_artefacts(tmp_path):
    data = recipe(sweep={"select.method": ["random"], "until": "sft"})
    plan(tmp_path, data)
    made = make_plan(tmp_path / "recipe.yaml", ["select.budget=7", "sft.seed=3"], tmp_path / "runs")
    write_record(made, run_cost(made))
    again = make_plan(made.run_dir / STATED_RECIPE, [], tmp_path / "runs")
    assert again.nodes[-1].id != plan(tmp_path, data).nodes[-1].id, "--set is in it"
    assert [node.id for node in again.nodes] == [node.id for node in made.nodes]
    assert [cell.label for cell in again.cells] == [cell.label for cell in made.cells]
    write_record(again, run_cost(again))
    assert [node.id for node in make_plan(again.run_dir / STATED_RECIPE, [], tmp_path / "runs").nodes] == [
        node.id for node in made.nodes
    ]


@pytest.mark.parametrize("file", files_below(""))
def test_shipped_recipes_are_the_same_data_once_written(file, tmp_path):
    stated, _ = load_data(RECIPES / file)
    (tmp_path / "again.yaml").write_text(to_yaml(stated))
    assert load_data(tmp_path / "again.yaml")[0] == stated
