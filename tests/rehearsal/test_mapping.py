"""What a rehearsal replaces, of every shipped recipe: plain data, nothing is carried out."""

import pytest
from rehearsal_parts import RECIPES, small_recipe
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.plan.plan import plan_recipe
from deita_train.recipe.loading import load_data, recipe_of, trainings

FILES = sorted(str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.y*ml"))
TWINS = {"zero2": "cpu_zero2", "zero3": "cpu_zero3"}
pytestmark = pytest.mark.usefixtures("offline", "no_gpus")


def _marks(file):
    """The tables of the paper differ in few things, and making the stand-ins of each takes seconds."""
    return [pytest.mark.faults] if file.startswith("paper/") and file != "paper/table-6-mistral-7b.yaml" else []


def test_every_shipped_recipe_is_here():
    assert len(FILES) == 47


@pytest.mark.parametrize("file", [pytest.param(file, marks=_marks(file)) for file in FILES])
def test_a_shipped_recipe_is_a_small_recipe_with_the_same_stages(file, own_files, tmp_path):
    path = RECIPES / file
    data, positions = load_data(path)
    real = recipe_of(data, path, positions).recipe
    small_data, replacements = small_recipe(data, tmp_path)
    loaded = recipe_of(small_data, path, positions)
    small = loaded.recipe
    assert set(small.model_fields_set) == set(real.model_fields_set) - {"report"}
    stated = dict(trainings(real))
    assert [name for name, _ in trainings(small)] == list(stated)
    for name, training in trainings(small):
        before = stated[name]
        assert training.global_batch_size <= 8 and training.global_batch_size <= before.global_batch_size
        assert training.launch == TWINS.get(before.launch, before.launch)
        changed = {"num_train_epochs", "max_length", "bf16"}
        assert {k: v for k, v in training.trainer.items() if k not in changed} == {
            k: v for k, v in before.trainer.items() if k not in changed
        }
        assert training.trainer.get("num_train_epochs", 3) <= 2
    nodes = plan_recipe(loaded, tmp_path / "runs").cells[0].nodes
    assert nodes and all(node.runtime["launch"]["use_cpu"] for node in nodes.values() if "launch" in node.runtime)
    # Every replacement says where, and what stands there now or that it was left out.
    assert replacements and all(one.path and one.reason and (one.real or one.stand_in) for one in replacements)
    assert not any("://" in one.stand_in for one in replacements)


def test_the_budget_sweep_keeps_its_methods_and_one_of_each_number(own_files, tmp_path):
    data, _ = load_data(RECIPES / "budget_sweep.yaml")
    small, replacements = small_recipe(data, tmp_path)
    assert small["sweep"] == {
        "select.method": ["deita", "random"], "select.budget": [16], "select.seed,sft.seed": [1], "whole_pool": True
    }  # fmt: skip
    told = {one.path: (one.real, one.stand_in) for one in replacements}
    assert told["sweep.select.budget"] == ("[1,000, 3,000, 6,000, 10,000, 30,000, 100,000]", "[16]")
    assert told["sft.launch"] == ("zero3", "cpu_zero3")
    assert told["sft.model"][0] == "huggyllama/llama-13b" and "LlamaForCausalLM" in told["sft.model"][1]
    assert told["embedding.max_length"] == ("2,048", "1,024")
    assert told["evaluate.heldout.dataset"][0] == "HuggingFaceH4/ultrafeedback_binarized (split test_prefs)"
    assert small["evaluate"]["heldout"]["format"] == "messages" and "split" not in small["evaluate"]["heldout"]
