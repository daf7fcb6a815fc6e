"""The JSON Schema of a recipe: what it takes and refuses, and that the file beside the recipes is what is printed."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from json_schema_check import at, fits
from tiny_recipe import dpo_recipe, recipe
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.recipe.config_fields import value_problem
from deita_train.recipe.json_schema import READ_PACKAGES, field_schema, recipe_schema
from deita_train.recipe.peft_fields import INITIALISATIONS, peft_fields
from deita_train.recipe.reference import field_texts
from deita_train.recipe.schema import Recipe, Select
from deita_train.recipe.trainer_fields import OWNED_FIELDS, trainer_fields
from deita_train.recipe.yaml_source import load_yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "recipes" / "recipe.schema.json"
SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))
SCHEMA = recipe_schema()


def pinned(package):
    return re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def is_recipe(data):
    return fits(data, SCHEMA, SCHEMA)


def test_the_file_beside_the_recipes_is_what_the_command_prints():
    others = [f"{name} {version(name)}" for name in READ_PACKAGES if version(name) != pinned(name)]
    if others:
        pytest.skip(f"the file has the fields of the versions in constraints.txt, and here are {', '.join(others)}")
    answer = CliRunner().invoke(app, ["schema"])
    assert answer.exit_code == 0
    assert FILE.read_text(encoding="utf-8") == answer.stdout, "run: deita-train schema > recipes/recipe.schema.json"


def test_the_draft_and_every_reference():
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    text = json.dumps(SCHEMA)
    references = set(re.findall(r'"\$ref": "([^"]*)"', text))
    assert len(references) > 100 and all(at(reference, SCHEMA) for reference in references)


def test_every_field_has_its_docstring():
    assert {name: field["description"] for name, field in SCHEMA["properties"].items()} == field_texts(Recipe)
    select = SCHEMA["$defs"]["Select"]
    assert {name: field["description"] for name, field in select["properties"].items()} == field_texts(Select)
    assert select["description"].startswith("Which rows are kept: a method, a budget")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_names_the_schema_and_fits_it(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    relative = first.removeprefix("# yaml-language-server: $schema=")
    assert relative != first and (path.parent / relative).resolve() == FILE
    assert is_recipe(load_yaml(path)[0])


FITTING = {
    "every section": recipe(),
    "DPO": dpo_recipe(sft__peft={"r": 4, "target_modules": "all-linear", "init_lora_weights": "gaussian"}),
    "a share": recipe(select__budget={"share": 0.5}),
    "a sweep": recipe(
        sweep={
            "select.budget": [10, {"tokens": 500}],
            "select.seed, sft.seed": [1, 2],
            "sft.trainer.learning_rate": [1e-3],
            "until": "sft",
            "whole_pool": True,
        }
    ),
    "a mapping in a sweep": recipe(sweep={"select": [{"method": "random", "budget": 3}]}),
    "null": recipe(sft__data=None, sft__seed=None, compare=None),
}


@pytest.mark.parametrize("what", FITTING)
def test_a_recipe_fits(what):
    assert is_recipe(FITTING[what])


REFUSED = {
    "an unknown key": recipe(selct={}),
    "an unknown key of a section": recipe(select__buget=3),
    "no name": recipe("name"),
    "a name that is no folder's": recipe(name="a/b"),
    "text for a number": recipe(select__threshold="0.9"),
    "yes for a boolean": recipe(sft__packing="yes"),
    "a number out of range": recipe(select__quality_weight=1.0),
    "an unknown method": recipe(select__method="deta"),
    "a budget of two kinds of wrong": recipe(select__budget={"rows": 3}),
    "a trainer field of nobody": recipe(sft__trainer={"learnin_rate": 1e-3}),
    "a trainer field of the framework's": recipe(sft__trainer={"output_dir": "x"}),
    "max_length in the wrong place": recipe(base__pretrain__trainer={"max_length": 3}),
    "a scheduler of nobody": recipe(sft__trainer={"lr_scheduler_type": "cosinus"}),
    "a field of DPO in SFT": recipe(sft__trainer={"beta": 0.1}),
    "rank 0": recipe(sft__peft={"r": 0}),
    "a peft field that is not offered": recipe(sft__peft={"loftq_config": {}}),
    "a sweep over nothing": recipe(sweep={"select.budget": []}),
    "a sweep over no list": recipe(sweep={"sft.trainer.learning_rate": 1e-3}),
    "a sweep over an unknown section": recipe(sweep={"selekt.budget": [1]}),
    "a sweep over a wrong value": recipe(sweep={"select.method": ["deta"]}),
    "a sweep over compare": recipe(sweep={"compare.methods": [["random"]]}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mistake_does_not_fit(what):
    assert not is_recipe(REFUSED[what])


def test_max_length_is_sfts_own_trainer_field():
    assert is_recipe(recipe(sft__trainer={"max_length": 99}))
    properties = {name: SCHEMA["$defs"][f"{name}trainer"]["properties"] for name in ("", "sft.", "dpo.")}
    assert set(properties["sft."]) - set(properties[""]) == {"max_length"}
    assert "beta" in properties["dpo."] and not {*OWNED_FIELDS} & {*properties["sft."]}


SAMPLES = [
    None, True, False, 0, 1, -3, 0.5, "no", "cosine", "", [], [1], ["a"], ["a", 1], [0.5], {}, {"a": 1}, {"a": "b"},
    {"a": [1]}, [{"a": 1}], "none", "gaussian",
]  # fmt: skip


@pytest.mark.parametrize("fields", [trainer_fields("sft"), trainer_fields("dpo"), peft_fields()], ids=len)
def test_a_field_of_a_library_takes_what_the_recipe_takes(fields):
    offered = [field for field in fields.values() if field.init]
    assert len(offered) > 20
    for field in offered:
        schema = field_schema(field)
        for value in SAMPLES:
            assert fits(value, schema, {}) == (value_problem(field, value) is None), (field, value)
    assert at("#/$defs/peft/properties/init_lora_weights", SCHEMA)["enum"] == [True, False, *INITIALISATIONS]
