import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import deita_train
from deita_train.errors import UserError
from deita_train.llm.endpoint import _ONLY_FOR_SERVERS
from deita_train.recipe.llm_sections import LlmEndpoint
from deita_train.recipe.loading import load_recipe, trainings
from deita_train.recipe.trainer_fields import GONE, OWNED_FIELDS, trainer_fields

KEY = "sk-planted-0123456789abcdef"
RECIPES = sorted((Path(deita_train.__file__).parent.parent / "recipes").rglob("*.yaml"))
RECIPE = """\
name: tiny
base:
  builtin: miniature
  pretrain:
    data: {builtin: quickstart_pretraining, rows: 20}
    global_batch_size: 4
    trainer: {learning_rate: 1e-3}
pool: {builtin: quickstart, rows: 20}
scorers:
  quality:
    train:
      data: {builtin: quickstart, rows: 20}
      model: base
      global_batch_size: 4
      trainer:
        learning_rate: 1e-3
select: {method: quality, budget: 5}
sft:
  model: base
  global_batch_size: 4
  trainer:
    learning_rate: 2e-5
    max_length: 64
"""


@pytest.fixture
def write(tmp_path):
    def write(text=RECIPE):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def refusal(path, *sets):
    with pytest.raises(UserError) as caught:
        load_recipe(path, sets)
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_valid(path):
    loaded = load_recipe(path)
    assert loaded.cells[0].is_base and loaded.recipe is loaded.cells[0].recipe
    assert sum(cell.is_base for cell in loaded.cells) == 1
    assert loaded.recipe.description


def test_the_shipped_recipes_are_seen_and_named_apart():
    assert len(RECIPES) > 0
    names = [load_recipe(path).recipe.name for path in RECIPES]
    assert len(set(names)) == len(names)


def test_a_recipe_as_written(write):
    loaded = load_recipe(write())
    assert loaded.recipe.sft.trainer == {"learning_rate": 2e-5, "max_length": 64}
    assert loaded.recipe.seed == 42
    assert (len(loaded.cells), loaded.sets, loaded.sweep_until) == (1, (), None)
    assert (loaded.recipe.select.method, loaded.recipe.select.budget) == ("quality", 5)


def test_every_training_section_is_checked(write):
    places = [place for place, _ in trainings(load_recipe(write()).recipe)]
    assert places == ["base.pretrain", "scorers.quality.train", "sft"]
    for place in places:
        setting = f"{place}.trainer.max_step=3"
        message = refusal(write(), setting)
        assert message.startswith(f"--set {setting}: {place}.trainer.max_step: unknown field of SFTConfig of trl ")
        assert message.endswith(" (did you mean max_steps?)")


def test_owned_fields_exist_in_the_installed_trl():
    assert len(OWNED_FIELDS) >= 20
    assert set(OWNED_FIELDS) <= set(trainer_fields("sft"))


@pytest.mark.parametrize("name", OWNED_FIELDS)
def test_a_field_that_the_framework_sets_is_refused_with_its_line(write, name):
    message = refusal(path := write(f"{RECIPE}    {name}: 1\n"))
    assert message == f"{path}:24: sft.trainer.{name}: set by the framework: {OWNED_FIELDS[name]}"


@pytest.mark.parametrize("name", GONE)
def test_a_field_that_is_gone_is_refused_with_advice(write, name):
    message = refusal(path := write(f"{RECIPE}    {name}: 1\n"))
    assert message.startswith(f"{path}:24: sft.trainer.{name}: gone from SFTConfig of trl ")
    assert message.endswith(f": {GONE[name]}")


def test_an_unknown_field_is_refused_with_its_line(write):
    path = write(RECIPE.replace("    learning_rate: 2e-5\n", "    lerning_rate: 2e-5\n"))
    message = refusal(path)
    assert message.startswith(f"{path}:22: sft.trainer.lerning_rate: unknown field of SFTConfig of trl ")
    assert message.endswith("(did you mean learning_rate?)")


def test_packing_is_stated_beside_the_trainer(write):
    for value in ("true", "false", "no"):
        assert refusal(write(), f"sft.trainer.packing={value}") == (
            f"--set sft.trainer.packing={value}: sft.trainer.packing: set by the framework: "
            "state packing: beside trainer: (of sft and of scorers)"
        )


def test_all_problems_of_the_trainers_are_shown_in_the_files_order(write):
    text = RECIPE.replace("max_length: 64", "max_length: long").replace(
        "trainer: {learning_rate: 1e-3}", "trainer: {bf16: no}"
    )
    path = write(text)
    assert refusal(path).splitlines() == [
        f"{path}:7: base.pretrain.trainer.bf16: 'no' is text; expected true or false or null "
        "(YAML 1.2 reads no as text)",
        f"{path}:23: sft.trainer.max_length: 'long' is text; expected a whole number or null",
    ]


def test_steps_take_the_place_of_the_file_s_epochs(write):
    path = write(RECIPE.replace("    learning_rate: 2e-5\n", "    num_train_epochs: 2\n"))
    message = refusal(path, "sft.trainer.max_steps=5")
    assert message.startswith(f"{path}:22: sft.trainer.num_train_epochs: would have no effect beside max_steps")
    loaded = load_recipe(path, ["sft.trainer.max_steps=5", "sft.trainer.num_train_epochs=null"])
    assert loaded.recipe.sft.trainer == {"max_steps": 5, "max_length": 64}
    assert "null is no value" in refusal(path, "sft.trainer.num_train_epochs=null")


def test_a_set_reaches_a_trainer_field(write):
    loaded = load_recipe(write(), ["sft.trainer.learning_rate=5e-6", "sft.trainer.lr_scheduler_type=cosine"])
    assert loaded.recipe.sft.trainer == {"learning_rate": 5e-6, "max_length": 64, "lr_scheduler_type": "cosine"}
    assert loaded.sets == ("sft.trainer.learning_rate=5e-6", "sft.trainer.lr_scheduler_type=cosine")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("sft.trainer.learning_rate=fast", "sft.trainer.learning_rate: 'fast' is text; expected a number"),
        ("sft.trainer.max_steps=1.5", "sft.trainer.max_steps: 1.5 is a decimal number; expected a whole number"),
        ("sft.trainer.learning_rate=.inf", "sft.trainer.learning_rate: inf is not finite; expected finite numbers"),
        ("sft.trainer=[1]", "sft.trainer: [1] is a list; expected a mapping"),
        (
            "sft.trainer=",
            "sft.trainer: null is no value; expected a mapping (the section is empty: fill it or remove the key)",
        ),
        (
            "select.budget=many",
            "select.budget: 'many' is text; expected a whole number, {share: 0.1} or {tokens: 5000000}",
        ),
        ("select.method=deitaa", "select.method: 'deitaa' is not allowed (did you mean deita?)"),
        ("select.order=up", "select.order: 'up' is not allowed; expected highest, lowest or middle"),
    ],
)
def test_a_wrong_value_of_the_command_line_is_reported_under_it(write, setting, problem):
    assert refusal(write(), setting) == f"--set {setting}: {problem}"


def test_a_cell_of_a_sweep_is_checked_and_named(write):
    path = write(RECIPE + "sweep: {select.budget: [5, 0]}\n")
    assert refusal(path) == (
        f"{path}:17: select.budget: 0 is a whole number; expected more than 0 or a mapping "
        "(in the sweep's cell budget 0)"
    )
    path = write(RECIPE + "sweep: {sft.trainer.max_length: [x]}\n")
    assert refusal(path) == (
        f"{path}:23: sft.trainer.max_length: 'x' is text; expected a whole number or null "
        "(in the sweep's cell max length x)"
    )


def test_a_wrong_recipe_names_no_cell(write):
    path = write(RECIPE.replace("budget: 5", "budget: 0") + "sweep: {sft.seed: [1, 2]}\n")
    assert refusal(path) == f"{path}:17: select.budget: 0 is a whole number; expected more than 0 or a mapping"


def test_a_sweep_of_the_command_line(write):
    loaded = load_recipe(write(), ["sweep.sft.trainer.learning_rate=[1e-5, 2e-5]", "sweep.until=sft"])
    assert [cell.recipe.sft.trainer["learning_rate"] for cell in loaded.cells] == [2e-5, 1e-5, 2e-5]
    assert loaded.sweep_until == "sft"
    assert [cell.settings for cell in loaded.cells[1:]] == [
        {"sft.trainer.learning_rate": rate} for rate in (1e-5, 2e-5)
    ]


def test_a_whole_pool_cell_is_a_valid_recipe_without_a_budget(write):
    loaded = load_recipe(write(), ["sweep.select.budget=[5, 10]", "sweep.sft.seed=[1]", "sweep.whole_pool=true"])
    assert [cell.label for cell in loaded.cells] == [
        "base run",
        "budget 5, seed 1",
        "budget 10, seed 1",
        "whole pool, seed 1",
    ]
    select = loaded.cells[-1].recipe.select
    assert (select.method, select.budget) == ("whole_pool", None)
    assert loaded.cells[-1].settings == {"select.method": "whole_pool", "sft.seed": 1}


def test_an_error_in_the_sweep_names_the_file(write):
    path = write(RECIPE + "sweep: {dpo.seed: [1]}\n")
    assert refusal(path) == f"{path}: sweep.dpo.seed: the recipe has no section dpo to set seed in"


def test_mistakes_in_the_sections_that_ask_a_chat_model_have_their_place(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: a\n"
        "llm:\n"
        "  judge: {base_url: http://x/v1, mdel: q}\n"
        "evolve: {seeds: {dataset: s.jsonl}, llm: judge, complexity: {evolutons: 3}}\n"
        "scorers:\n"
        "  complexity: {train: {data: {datast: x.jsonl}, model: m, global_batch_size: 4}}\n"
    )
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert str(caught.value).splitlines() == [
        f"{path}:3: llm.judge.mdel: unknown key (did you mean model?)",
        f"{path}:4: evolve.complexity.evolutons: unknown key (did you mean evolutions?)",
        f"{path}:6: scorers.complexity.train.data.datast: unknown key (did you mean dataset?)",
    ]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("base_url", "localhost:8000", "is no address of a server"),
        ("base_url", f"https://me:{KEY}@host/v1", "holds a user, a password"),
        ("api_key_env", KEY, "is no name of an environment variable"),
        ("api_key_env", "$OPENAI_API_KEY", "is no name of an environment variable"),
    ],
)
def test_an_address_that_is_none_and_a_key_in_the_recipe_are_refused_at_their_line_and_not_shown(
    tmp_path, field, value, problem
):
    path = tmp_path / "r.yaml"
    fields = {"base_url": "http://localhost:8000/v1", "model": "m", field: value}
    lines = "".join(f"    {name}: {json.dumps(written)}\n" for name, written in fields.items())
    path.write_text(f"name: a\nllm:\n  judge:\n{lines}pool: {{dataset: x.jsonl}}\n")
    line = 4 + list(fields).index(field)
    for sets in ([], [f"llm.judge.{field}={value}"]):
        with pytest.raises(UserError, match=problem) as caught:
            load_recipe(path, sets)
        assert f"llm.judge.{field}: {problem}" in str(caught.value) and KEY not in str(caught.value)
        assert sets or str(caught.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("field", [name for name in _ONLY_FOR_SERVERS if name != "base_url"])
def test_what_the_client_would_refuse_of_a_local_model_is_refused_in_the_recipe(field):
    values = {"api_key_env": "KEY", "price": {"input": 1.0, "output": 1.0}, "max_cost": 5.0}
    with pytest.raises(ValidationError, match=f"{field} would have no effect beside local:"):
        LlmEndpoint.model_validate({"local": "m", field: values.get(field, 5)})
