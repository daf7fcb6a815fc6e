"""docs/names.md: every name of ours is one of the schema's, and every name of trl's one of trl's."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from json_schema_check import at, fits

from deita_train.cli import app
from deita_train.data.shipped_templates import TEMPLATES_DIR
from deita_train.plan.launch import CONFIG_DIRS
from deita_train.recipe.config_fields import read_config
from deita_train.recipe.json_schema import recipe_schema
from deita_train.recipe.yaml_source import parse_value

PAGE = Path(__file__).parents[2] / "docs" / "names.md"
SCHEMA = recipe_schema()
COMMANDS = set(typer.main.get_command(app).commands)
TRLS_CONFIGS = ("SFTConfig", "DPOConfig", "ModelConfig", "ScriptArguments")
# What is no name of a recipe's: where a run's folder leads.
PLACES = {"runs/<name>/sft"}


def rows():
    """Each row's cells: the setting, the three names, ours."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells for cells in found if cells[0] != "setting" and set("".join(cells)) != {"-"}]


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


def resolve(path):
    """The schema at a dotted path; None when there is none."""
    here = SCHEMA
    for name in path.split("."):
        inside = [one for one in members(here) if name in one.get("properties", {})]
        if not inside:
            return None
        here = inside[0]["properties"][name]
    return here


def members(schema):
    """A schema, or what it refers to, or the members of its union."""
    if "$ref" in schema:
        return members(at(schema["$ref"], SCHEMA))
    return [one for member in schema["anyOf"] for one in members(member)] if "anyOf" in schema else [schema]


def is_ours(name):
    """Whether a name of the last column, with its value if it states one, is one that a recipe may have."""
    if name.startswith("deita-train "):
        return name.removeprefix("deita-train ") in COMMANDS
    path, colon, value = name.partition(": ")
    schema = resolve(path)
    if schema is None:
        return False
    return not colon or (fits(parse_value(value, source=name), schema, SCHEMA) and exists(path, value))


def exists(path, value):
    """Whether a launch file or a template of that name is there; one of the user's own is called mine."""
    if Path(value).stem == "mine":
        return True
    if path.endswith(".launch"):
        return any((folder / f"{value}.yaml").is_file() for folder in CONFIG_DIRS)
    if path.endswith(".chat_template"):
        return value == "tokenizer" or (TEMPLATES_DIR / f"{value}.jinja").is_file()
    return True


def test_there_are_enough_rows_and_each_says_what_is_here():
    assert len(rows()) >= 40
    for cells in rows():
        assert len(cells) == 5 and all(cells), cells
        assert quoted(cells[4]), cells


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0])
def test_a_name_of_ours_is_the_schemas(cells):
    wrong = [name for name in quoted(cells[4]) if name not in PLACES and not is_ours(name)]
    assert wrong == []


def test_names_of_trls_are_in_the_installed_trl():
    known = {name for config in TRLS_CONFIGS for name in read_config("trl", config)}
    files = Path(find_spec("trl").submodule_search_locations[0]) / "accelerate_configs"
    options = {f"--accelerate_config {name}" for name in ("mine.yaml", *(file.stem for file in files.glob("*.yaml")))}
    named = {name for cells in rows() for name in quoted(cells[1])}
    assert len(named) > 40 and named - options <= known


@pytest.mark.parametrize(
    "name", ["sft.trainer.learnin_rate", "sft.quantization: nf5", "sft.launch: zero9", "sft.chat_template: none",
             "sft.packing: yes", "deita-train puhs", "sft.trainer.output_dir", "nothing"],
)  # fmt: skip
def test_a_wrong_name_is_noticed(name):
    assert not is_ours(name)
