import dataclasses
import subprocess
import sys

import pytest

from deita_train.recipe.annotations import accepts
from deita_train.recipe.config_fields import NotLiteral
from deita_train.recipe.trainer_fields import GONE, check_trainer, refused_fields, trainer_fields

REFUSED = {
    "output_dir": "set by the framework: the run's folder is derived from its name",
    "seed": "set by the framework: state seed: in the section",
}


def problems(values, kind="sft"):
    return check_trainer(kind, values, where=f"{kind}.trainer", refused=REFUSED)


@pytest.mark.parametrize(("kind", "name"), [("sft", "SFTConfig"), ("dpo", "DPOConfig")])
def test_the_fields_are_those_of_the_imported_class(kind, name):
    import trl

    imported = {field.name: field for field in dataclasses.fields(getattr(trl, name))}
    read = trainer_fields(kind)
    assert len(read) > 100
    assert set(read) == set(imported)
    literal = {name: field.default for name, field in read.items() if not isinstance(field.default, NotLiteral)}
    assert len(literal) > 100
    for name, default in literal.items():
        factory = imported[name].default_factory
        assert default == (imported[name].default if factory is dataclasses.MISSING else factory()), name


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_choices_of_enumerations_are_those_of_the_imported_class(kind):
    from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    enumerations = {
        "lr_scheduler_type": SchedulerType,
        "optim": OptimizerNames,
        "eval_strategy": IntervalStrategy,
        "save_strategy": SaveStrategy,
    }
    for name, enumeration in enumerations.items():
        assert set(trainer_fields(kind)[name].choices) == {member.value for member in enumeration}


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_every_default_fits_its_annotation(kind):
    fields = [field for field in trainer_fields(kind).values() if not isinstance(field.default, NotLiteral)]
    assert len(fields) > 100
    assert [field.name for field in fields if not accepts(field.annotation, field.default)] == []
    assert [field.name for field in fields if field.choices and field.default not in (*field.choices, None)] == []


def test_reading_both_takes_less_than_half_a_second_and_imports_nothing():
    program = """
import sys, time
from deita_train.recipe.trainer_fields import trainer_fields
start = time.process_time()
assert len(trainer_fields("sft")) > 100 and len(trainer_fields("dpo")) > 100
print(time.process_time() - start)
assert not {"trl", "transformers", "torch", "accelerate", "numpy"} & set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.5


def test_the_paper_s_settings_have_no_problem():
    sft = {
        "learning_rate": 2e-5,
        "num_train_epochs": 6,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "max_length": 2048,
        "bf16": True,
        "report_to": ["wandb"],
        "model_init_kwargs": {"attn_implementation": "sdpa"},
        "neftune_noise_alpha": None,
    }
    assert problems(sft) == []
    dpo = {"beta": 0.1, "learning_rate": 5e-7, "num_train_epochs": 9, "loss_type": ["sigmoid"], "max_length": None}
    assert problems(dpo, "dpo") == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("packing", "no", "'no' is text; expected true or false (YAML 1.2 reads no as text)"),
        ("bf16", "yes", "'yes' is text; expected true or false or null (YAML 1.2 reads yes as text)"),
        ("bf16", 1, "1 is a whole number; expected true or false or null"),
        ("learning_rate", "2e-5", "'2e-5' is text; expected a number (write it without quotes and underscores)"),
        ("learning_rate", True, "true is a boolean; expected a number"),
        ("learning_rate", float("inf"), "inf is not finite; expected finite numbers"),
        ("learning_rate", float("nan"), "nan is not finite; expected finite numbers"),
        ("lr_scheduler_kwargs", {"a": [float("nan")]}, "{'a': [nan]} is a mapping; expected finite numbers"),
        ("max_steps", 3.0, "3.0 is a decimal number; expected a whole number"),
        ("max_steps", False, "false is a boolean; expected a whole number"),
        ("max_length", 2048.0, "2048.0 is a decimal number; expected a whole number or null"),
        ("run_name", 7, "7 is a whole number; expected text or null (put it in quotes)"),
        ("label_names", "labels", "'labels' is text; expected a list of text or null (write [labels])"),
        ("save_strategy", False, "false is a boolean; expected no, steps, epoch or best"),
        ("save_strategy", "step", "'step' is not allowed (did you mean steps?); expected no, steps, epoch or best"),
        ("optim", "adamw_torch_fuse", "'adamw_torch_fuse' is not allowed (did you mean adamw_torch_fused?)"),
        (
            "packing_strategy",
            "zzz",
            "'zzz' is not allowed; expected bfd, bfd_split or wrapped",
        ),
        ("seed", 3, "set by the framework: state seed: in the section"),
    ],
)
def test_a_wrong_value_is_explained(name, value, problem):
    assert problems({name: value}) == [f"sft.trainer.{name}: {problem}"]


def test_a_list_is_wanted_for_dpo_losses():
    assert problems({"loss_type": "sigmoid"}, "dpo") == [
        "dpo.trainer.loss_type: 'sigmoid' is text; expected a list of text (write [sigmoid])"
    ]


def test_an_unknown_field_names_the_nearest_one():
    (problem,) = problems({"lerning_rate": 1})
    assert problem.startswith("sft.trainer.lerning_rate: unknown field of SFTConfig of trl ")
    assert problem.endswith(" (did you mean learning_rate?)")
    (problem,) = problems({"zzzz": 1})
    assert "did you mean" not in problem


def test_a_refused_field_is_not_proposed():
    (problem,) = problems({"output_dirs": 1})
    assert "output_dir?" not in problem


def test_a_field_of_the_other_trainer_is_named_as_such():
    (problem,) = problems({"beta": 0.1})
    assert problem.endswith("only of DPOConfig")
    (problem,) = problems({"packing": True}, "dpo")
    assert problem.endswith("only of SFTConfig")


def test_problems_keep_the_order_of_the_values():
    names = ["zzzz", "learning_rate", "packing", "output_dir"]
    texts = problems({"zzzz": 1, "learning_rate": "x", "max_steps": 3, "packing": 0, "output_dir": "x"})
    assert [text.split(":")[0] for text in texts] == [f"sft.trainer.{name}" for name in names]


def test_every_field_known_to_be_gone_is_gone_and_what_replaces_it_is_there():
    installed = set(trainer_fields("sft")) | set(trainer_fields("dpo"))
    assert len(GONE) >= 15
    assert not installed & set(GONE)
    replacements = [sentence.split()[1].strip(",:") for sentence in GONE.values() if sentence.startswith("write ")]
    assert len(replacements) >= 6
    assert set(replacements) <= installed - {*refused_fields("sft")}
    assert "group_by_length" in trainer_fields("sft")["train_sampling_strategy"].choices
    assert "adafactor" in trainer_fields("sft")["optim"].choices
    for name, sentence in GONE.items():
        (problem,) = problems({name: 1})
        assert problem.endswith(f": {sentence}")
