import dataclasses
import subprocess
import sys
from importlib.metadata import version

import pytest

from deita_train.errors import UserError
from deita_train.recipe.annotations import accepts
from deita_train.recipe.config_fields import ConfigField, NotLiteral, value_problem
from deita_train.recipe.loading import load_recipe
from deita_train.recipe.peft_fields import (
    INITIALISATIONS,
    OWNED_PEFT_FIELDS,
    REFUSED_PEFT_FIELDS,
    check_peft,
    peft_fields,
)

RECIPE = """\
name: tiny
base:
  builtin: miniature
  pretrain:
    data: {builtin: quickstart_pretraining, rows: 20}
    global_batch_size: 4
pool: {builtin: quickstart, rows: 20}
scorers:
  quality:
    train:
      data: {builtin: quickstart, rows: 20}
      model: base
      global_batch_size: 4
      peft: {r: 8}
select: {method: quality, budget: 5}
sft:
  model: base
  global_batch_size: 4
  peft:
    r: 8
    lora_alpha: 16
  merge_adapter: true
dpo:
  preferences: {builtin: quickstart_preferences, rows: 8}
  global_batch_size: 4
  peft: {r: 4, use_dora: true}
"""


def problems(values):
    return check_peft(values, where="sft.peft")


def test_the_fields_are_those_of_the_imported_class():
    from peft import LoraConfig

    imported = {field.name: field for field in dataclasses.fields(LoraConfig)}
    read = peft_fields()
    assert len(read) > 30
    assert set(read) == set(imported)
    for name, field in read.items():
        assert field.init == imported[name].init
        if not isinstance(field.default, NotLiteral):
            factory = imported[name].default_factory
            assert field.default == (imported[name].default if factory is dataclasses.MISSING else factory()), name


def test_every_default_fits_its_annotation():
    fields = [field for field in peft_fields().values() if not isinstance(field.default, NotLiteral)]
    assert len(fields) > 30
    assert [field.name for field in fields if not accepts(field.annotation, field.default)] == []


def test_reading_them_imports_nothing():
    program = """
import sys
from deita_train.recipe.peft_fields import peft_fields
assert len(peft_fields()) > 30
assert not {"peft", "transformers", "torch", "accelerate", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_owned_and_refused_field_exists():
    """A later peft may drop one; then it is time to drop it here."""
    assert set(OWNED_PEFT_FIELDS) | set(REFUSED_PEFT_FIELDS) <= set(peft_fields())
    assert not set(OWNED_PEFT_FIELDS) & set(REFUSED_PEFT_FIELDS)


def test_the_usual_settings_have_no_problem():
    assert problems({"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}) == []
    assert problems({"target_modules": "all-linear", "use_rslora": True, "use_dora": True, "bias": "lora_only"}) == []
    assert problems({"modules_to_save": ["lm_head"], "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q": 8.5}}) == []
    assert problems({"layers_to_transform": [0, 1], "layers_pattern": "layers", "exclude_modules": None}) == []
    assert problems({"trainable_token_indices": {"embed_tokens": [1, 2]}, "lora_dropout": 0}) == []
    for value in (True, False, *INITIALISATIONS):
        assert problems({"init_lora_weights": value}) == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("r", "8", "'8' is text; expected a whole number (write it without quotes and underscores)"),
        ("r", 8.0, "8.0 is a decimal number; expected a whole number"),
        ("r", True, "true is a boolean; expected a whole number"),
        ("r", 0, "0 is a whole number; expected more than 0"),
        ("use_dora", "no", "'no' is text; expected true or false (YAML 1.2 reads no as text)"),
        ("bias", "nope", "'nope' is text; expected 'none', 'all', 'lora_only'"),
        ("lora_dropout", 1.0, "1.0 is a decimal number; expected 0 or more and less than 1"),
        ("lora_dropout", -0.1, "-0.1 is a decimal number; expected 0 or more and less than 1"),
        ("lora_dropout", float("nan"), "nan is not finite; expected finite numbers"),
        ("target_modules", 3, "3 is a whole number; expected a list of text, text or null (put it in quotes)"),
        ("rank_pattern", {"q": "4"}, "{'q': '4'} is a mapping; expected a mapping of a whole number or null"),
        ("rank_pattern", {"q": 0}, "{'q': 0}; expected ranks of more than 0"),
        ("layers_to_transform", ["a"], "['a'] is a list; expected a list of a whole number, a whole number or null"),
        (
            "init_lora_weights",
            "guassian",
            "'guassian' is not allowed (did you mean gaussian?); expected true, false, gaussian, orthogonal or mica",
        ),
        (
            "init_lora_weights",
            "pissa_niter_16",
            "'pissa_niter_16' is not offered: it changes the base's weights or reads the data; expected true, false, "
            "gaussian, orthogonal or mica",
        ),
        ("task_type", "CAUSAL_LM", "set by the framework: every model here is a causal language model"),
        ("base_model_name_or_path", "x", "set by the framework: state model: beside peft:"),
        ("eva_config", {}, "not offered: its initialisation passes over the data before the training"),
    ],
)
def test_a_wrong_value_is_explained(name, value, problem):
    assert problems({name: value}) == [f"sft.peft.{name}: {problem}"]


def test_an_unknown_field_names_the_nearest_one_that_is_offered():
    installed = f"LoraConfig of peft {version('peft')}"
    assert problems({"lora_aplha": 16}) == [
        f"sft.peft.lora_aplha: unknown field of {installed} (did you mean lora_alpha?)"
    ]
    assert problems({"zzzz": 1}) == [f"sft.peft.zzzz: unknown field of {installed}"]
    (problem,) = problems({"eva_confi": 1})
    assert "eva_config" not in problem.split(": ", 1)[1]


def test_a_field_that_the_class_computes_cannot_be_stated():
    computed = ConfigField("n", "int", 0, init=False)
    assert value_problem(computed, 0) == "cannot be set: the configuration computes it"


def test_problems_keep_the_order_of_the_values():
    texts = problems({"zzzz": 1, "r": 8, "use_dora": 1, "task_type": 2, "bias": 3})
    assert [text.split(":")[0].removeprefix("sft.peft.") for text in texts] == ["zzzz", "use_dora", "task_type", "bias"]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def refusal(path, *sets):
    with pytest.raises(UserError) as caught:
        load_recipe(path, sets)
    return str(caught.value)


def test_a_recipe_with_adapters_is_read(path):
    recipe = load_recipe(path).recipe
    assert (recipe.sft.peft, recipe.sft.merge_adapter) == ({"r": 8, "lora_alpha": 16}, True)
    assert recipe.scorers.quality.train.peft == {"r": 8} and recipe.dpo.peft == {"r": 4, "use_dora": True}


def test_a_wrong_field_is_refused_with_its_line(path):
    path.write_text(RECIPE.replace("    lora_alpha: 16\n", "    lora_aplha: 16\n"))
    message = refusal(path)
    assert message.startswith(f"{path}:21: sft.peft.lora_aplha: unknown field of LoraConfig of peft ")
    assert message.endswith("(did you mean lora_alpha?)")


@pytest.mark.parametrize("section", ["scorers.quality.train", "sft", "dpo"])
def test_every_tuning_is_checked(path, section):
    assert refusal(path, f"{section}.peft.use_dora=no") == (
        f"--set {section}.peft.use_dora=no: {section}.peft.use_dora: 'no' is text; expected true or false "
        "(YAML 1.2 reads no as text)"
    )


def test_trainer_and_peft_are_shown_together(path):
    path.write_text(RECIPE.replace("    r: 8\n", "    r: x\n") + "  trainer: {bf16: no}\n")
    assert refusal(path).splitlines() == [
        f"{path}:20: sft.peft.r: 'x' is text; expected a whole number",
        f"{path}:27: dpo.trainer.bf16: 'no' is text; expected true or false or null (YAML 1.2 reads no as text)",
    ]


def test_merging_without_an_adapter_is_refused(path):
    path.write_text(RECIPE.replace("  peft:\n    r: 8\n    lora_alpha: 16\n", ""))
    assert "merge_adapter: would have no effect without peft:" in refusal(path)
