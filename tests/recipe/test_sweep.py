import copy

import pytest

from deita_train.errors import UserError
from deita_train.recipe.sweep import expand

DATA = {"name": "a", "seed": 1, "select": {"budget": 5}, "sft": {"seed": 2, "trainer": {"max_length": 9}}}


def cells(sweep):
    return expand({**DATA, "sweep": sweep}, "r.yaml")


def refusal(sweep):
    with pytest.raises(UserError) as caught:
        cells(sweep)
    return str(caught.value)


@pytest.mark.parametrize("data", [DATA, {**DATA, "sweep": None}])
def test_without_a_sweep_there_is_the_recipe_as_written(data):
    (cell,), until = expand(data, "r.yaml")
    assert (cell.label, cell.settings, cell.is_base, cell.data, until) == ("as written", {}, True, DATA, None)


def test_the_cells_are_the_product_in_the_order_of_the_recipe():
    made, until = cells({"select.budget": [10, 20], "sft.seed": [1, 2, 3]})
    assert until is None
    assert made[0].is_base and made[0].data == DATA
    assert [cell.label for cell in made[1:]] == [
        f"select.budget={budget}, sft.seed={seed}" for budget in (10, 20) for seed in (1, 2, 3)
    ]
    assert not any(cell.is_base for cell in made[1:])
    assert [(cell.data["select"]["budget"], cell.data["sft"]["seed"]) for cell in made[1:]] == [
        (10, 1),
        (10, 2),
        (10, 3),
        (20, 1),
        (20, 2),
        (20, 3),
    ]
    assert made[4].settings == {"select.budget": 20, "sft.seed": 1}


def test_only_the_swept_values_differ():
    made, _ = cells({"sft.trainer.max_length": [7]})
    expected = copy.deepcopy(DATA)
    expected["sft"]["trainer"]["max_length"] = 7
    assert made[1].data == expected
    made[1].data["select"]["budget"] = 99
    assert made[0].data == DATA == expand(DATA, "r.yaml")[0][0].data


@pytest.mark.parametrize("paths", ["select.seed,sft.seed", "select.seed, sft.seed"])
def test_paths_joined_by_commas_take_the_same_value(paths):
    made, _ = cells({paths: [3, 4]})
    assert [cell.label for cell in made[1:]] == ["select.seed,sft.seed=3", "select.seed,sft.seed=4"]
    assert [cell.settings for cell in made[1:]] == [{"select.seed": n, "sft.seed": n} for n in (3, 4)]
    assert [(cell.data["select"]["seed"], cell.data["sft"]["seed"]) for cell in made[1:]] == [(3, 3), (4, 4)]


def test_a_new_key_and_a_key_at_the_top_can_be_swept():
    made, _ = cells({"select.threshold": [0.5], "seed": [8]})
    assert made[1].data["select"] == {"budget": 5, "threshold": 0.5}
    assert made[1].data["seed"] == 8


def test_values_may_be_sections():
    made, _ = cells({"select": [{"method": "random", "budget": 3}]})
    assert made[1].data["select"] == {"method": "random", "budget": 3}


def test_until_is_no_axis():
    made, until = cells({"sft.seed": [1], "until": "sft"})
    assert (len(made), until) == (2, "sft")


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (["select.budget"], "sweep: ['select.budget'] is no mapping of dotted paths to lists of values"),
        ({"select.budget": 5}, "sweep.select.budget: 5 is no list of values to try, such as [1, 2, 3]"),
        ({"select.budget": []}, "sweep.select.budget: [] is no list of values to try, such as [1, 2, 3]"),
        ({"select.budget": None}, "sweep.select.budget: None is no list of values to try, such as [1, 2, 3]"),
        ({"dpo.seed": [1]}, "sweep.dpo.seed: the recipe has no section dpo to set seed in"),
        ({"sft.peft.r": [1]}, "sweep.sft.peft.r: the recipe has no section peft to set r in"),
        ({"sft.seed,dpo.seed": [1]}, "sweep.dpo.seed: the recipe has no section dpo to set seed in"),
        ({"seed.x": [1]}, "sweep.seed.x: the recipe has no section seed to set x in"),
        ({}, "sweep: has no values to try; add select.budget: [1000, 3000], or leave sweep: out"),
        ({"until": "sft"}, "sweep: has no values to try; add select.budget: [1000, 3000], or leave sweep: out"),
        (
            {"sft.seed": [1, 2], "sft.seed,select.seed": [3]},
            "sweep.sft.seed: is swept twice; state its values under one key",
        ),
    ],
)
def test_a_wrong_sweep_is_named(sweep, message):
    assert refusal(sweep) == f"r.yaml: {message}"
