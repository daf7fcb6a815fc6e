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
    assert (cell.label, cell.settings, cell.is_base, cell.data, until) == ("base run", {}, True, DATA, None)


def test_the_cells_are_the_product_in_the_order_of_the_recipe():
    made, until = cells({"select.budget": [10, 20], "sft.seed": [1, 2, 3]})
    assert until is None
    assert made[0].is_base and made[0].data == DATA
    assert [cell.label for cell in made[1:]] == [
        f"budget {budget}, seed {seed}" for budget in (10, 20) for seed in (1, 2, 3)
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
    assert [cell.label for cell in made[1:]] == ["seed 3", "seed 4"]
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
        (["select.budget"], "sweep: ['select.budget'] is not a mapping of dotted paths to lists of values"),
        ({"select.budget": 5}, "sweep.select.budget: 5 is not a list of values to try, such as [1, 2, 3]"),
        ({"select.budget": []}, "sweep.select.budget: [] is not a list of values to try, such as [1, 2, 3]"),
        ({"select.budget": None}, "sweep.select.budget: None is not a list of values to try, such as [1, 2, 3]"),
        ({"dpo.seed": [1]}, "sweep.dpo.seed: the recipe has no section dpo to set seed in"),
        ({"sft.peft.r": [1]}, "sweep.sft.peft.r: the recipe has no section peft to set r in"),
        ({"sft.seed,dpo.seed": [1]}, "sweep.dpo.seed: the recipe has no section dpo to set seed in"),
        (
            {"selct.seed": [1]},
            "sweep.selct.seed: the recipe has no section selct to set seed in (did you mean select?)",
        ),
        ({"seed.x": [1]}, "sweep.seed.x: the recipe has no section seed to set x in"),
        ({}, "sweep: has no values to try; add select.budget: [1000, 3000], or leave sweep: out"),
        ({"until": "sft"}, "sweep: has no values to try; add select.budget: [1000, 3000], or leave sweep: out"),
        (
            {"sft.seed": [1, 2], "sft.seed,select.seed": [3]},
            "sweep.sft.seed: is swept twice; state its values under one key",
        ),
        (
            {"select.seed,sft.seed": [1], "select.seed, sft.seed": [2]},
            "sweep.select.seed: is swept twice; state its values under one key",
        ),
        (
            {"select.budget": [1, 2], "select": [{"method": "random", "budget": 3}]},
            "sweep.select.budget: lies inside select, which is swept too; sweep one of the two",
        ),
        ({"sft.seed": [1, 2, 1]}, "sweep: two cells are 'seed 1'; state each value once"),
        ({"whole_pool": "yes"}, "sweep.whole_pool: 'yes' is not allowed; expected true or false"),
        ({"whole_pool": [True]}, "sweep.whole_pool: [True] is not allowed; expected true or false"),
        ({"whole_pool": False}, "sweep: has no values to try; add select.budget: [1000, 3000], or leave sweep: out"),
    ],
)
def test_a_wrong_sweep_is_named(sweep, message):
    assert refusal(sweep) == f"r.yaml: {message}"


def settings(made):
    return [(cell.label, cell.settings) for cell in made[1:]]


def test_the_whole_pool_is_one_more_cell_for_each_seed_of_the_training():
    made, _ = cells({"select.budget": [10, 20], "select.seed,sft.seed": [1, 2], "whole_pool": True})
    assert settings(made) == [
        ("budget 10, seed 1", {"select.budget": 10, "select.seed": 1, "sft.seed": 1}),
        ("budget 10, seed 2", {"select.budget": 10, "select.seed": 2, "sft.seed": 2}),
        ("budget 20, seed 1", {"select.budget": 20, "select.seed": 1, "sft.seed": 1}),
        ("budget 20, seed 2", {"select.budget": 20, "select.seed": 2, "sft.seed": 2}),
        ("whole pool, seed 1", {"select.method": "whole_pool", "sft.seed": 1}),
        ("whole pool, seed 2", {"select.method": "whole_pool", "sft.seed": 2}),
    ]
    assert [cell.data for cell in made[5:]] == [
        {**DATA, "select": {"method": "whole_pool"}, "sft": {"seed": seed, "trainer": {"max_length": 9}}}
        for seed in (1, 2)
    ]


@pytest.mark.parametrize(
    "sweep",
    [
        {"select.method": ["deita", "random"], "select.budget": [10, 20]},
        {"select": [{"method": "random", "budget": 3}]},
        {},
    ],
)
def test_a_sweep_of_the_selection_alone_has_one_whole_pool(sweep):
    made, _ = cells({**sweep, "whole_pool": True})
    assert settings(made)[-1] == ("whole pool", {"select.method": "whole_pool"})
    assert sum(cell.label.startswith("whole pool") for cell in made) == 1
    assert made[-1].data == {**DATA, "select": {"method": "whole_pool"}}


def test_a_whole_pool_beside_a_sweep_of_the_training_alone():
    made, _ = cells({"seed": [3, 4], "whole_pool": True, "until": "sft"})
    assert [label for label, _ in settings(made)] == ["seed 3", "seed 4", "whole pool, seed 3", "whole pool, seed 4"]
    assert [cell.data["seed"] for cell in made] == [1, 3, 4, 3, 4]


def test_a_path_that_only_begins_like_select_is_kept():
    data = {**DATA, "selection": {"budget": 1}}
    made, _ = expand({**data, "sweep": {"selection.budget": [7], "whole_pool": True}}, "r.yaml")
    assert settings(made)[-1] == ("whole pool, budget 7", {"select.method": "whole_pool", "selection.budget": 7})


@pytest.mark.parametrize("select", [{}, {"select": None}])
def test_a_whole_pool_wants_a_selection_to_be_compared_with(select):
    data = {"name": "a", "sft": {"seed": 2}, **select, "sweep": {"sft.seed": [1], "whole_pool": True}}
    with pytest.raises(UserError) as caught:
        expand(data, "r.yaml")
    assert str(caught.value) == (
        "r.yaml: sweep.whole_pool: is compared with a selection, and the recipe has no select: section. Add it, or "
        "leave whole_pool: out."
    )
