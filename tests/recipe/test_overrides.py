import copy

import pytest

from deita_train.errors import UserError
from deita_train.recipe.overrides import apply_overrides, override_path

DATA = {"name": "a", "select": {"budget": 10}, "pool": {"sources": [{"rows": 1}, {"rows": 2}]}, "dpo": None}


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("select.budget=20", {"select": {"budget": 20}}),
        ("select.method=random", {"select": {"budget": 10, "method": "random"}}),
        ("select.budget=2e-5", {"select": {"budget": 2e-5}}),
        ("select.budget=no", {"select": {"budget": "no"}}),
        ("select.budget='7'", {"select": {"budget": "7"}}),
        ("select={method: random}", {"select": {"method": "random"}}),
        ("select=null", {"select": None}),
        ("select.budget=~", {"select": {"budget": None}}),
        ("select.budget=", {"select": {"budget": None}}),
        ("name=a=b", {"name": "a=b"}),
        (" select.budget =3", {"select": {"budget": 3}}),
        ("sft.trainer.beta=0.1", {"sft": {"trainer": {"beta": 0.1}}}),
        ("dpo.model=x", {"dpo": {"model": "x"}}),
        ("pool.sources.1.rows=5", {"pool": {"sources": [{"rows": 1}, {"rows": 5}]}}),
        ("pool.sources.0=x", {"pool": {"sources": ["x", {"rows": 2}]}}),
        ("select.0=x", {"select": {"budget": 10, "0": "x"}}),
        ("sweep.select.budget=[1000, 3000]", {"sweep": {"select.budget": [1000, 3000]}}),
        ("sweep.until=sft", {"sweep": {"until": "sft"}}),
        ("sweep={sft.seed: [1, 2]}", {"sweep": {"sft.seed": [1, 2]}}),
    ],
)
def test_a_setting_changes_only_its_path(setting, changed):
    before = copy.deepcopy(DATA)
    assert apply_overrides(DATA, [setting]) == before | changed
    assert before == DATA


def test_settings_are_laid_over_in_order():
    assert apply_overrides({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


def test_the_result_shares_nothing_with_the_recipe():
    result = apply_overrides(DATA, [])
    assert result == DATA
    result["pool"]["sources"][0]["rows"] = 99
    assert DATA["pool"]["sources"][0]["rows"] == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("select.budget", "no '='; write it as path=value, for instance select.budget=6000"),
        ("=1", "the path '' has an empty part; write it as section.key=value"),
        ("select..budget=1", "the path 'select..budget' has an empty part; write it as section.key=value"),
        ("sweep..budget=1", "the path 'sweep..budget' has an empty part; write it as section.key=value"),
        ("select.=1", "the path 'select.' has an empty part; write it as section.key=value"),
        ("name.x=1", "name is not a section: 'a' is text; set name itself instead"),
        (
            "select.budget.x.y=1",
            "select.budget is not a section: 10 is a whole number; set select.budget itself instead",
        ),
        ("pool.sources.2.rows=1", "pool.sources is a list, '2' is not an index of it; allowed: 0 to 1"),
        ("pool.sources.-1.rows=1", "pool.sources is a list, '-1' is not an index of it; allowed: 0 to 1"),
        ("pool.sources.rows=1", "pool.sources is a list, 'rows' is not an index of it; allowed: 0 to 1"),
        ("name=*x", "alias *x: no anchor &x stands before it"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(UserError) as caught:
        apply_overrides(DATA, [setting])
    assert str(caught.value) == f"--set {setting}: {message}"


def test_a_value_that_is_not_yaml_is_named():
    with pytest.raises(UserError, match=r"^--set select\.budget=\[1: not YAML: "):
        apply_overrides(DATA, ["select.budget=[1"])


def test_the_path_of_a_setting():
    assert override_path("a.0.b=c.d=e") == ("a", "0", "b")
    assert override_path("sweep.sft.trainer.beta=[1]") == ("sweep", "sft.trainer.beta")
    assert override_path("sweep={}") == ("sweep",)
