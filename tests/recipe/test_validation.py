from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from deita_train.errors import UserError
from deita_train.recipe.validation import explain, nearest, report_problems
from deita_train.recipe.yaml_source import Positions, load_yaml


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Released(Section):
    dataset: str
    revision: str | None = None


class Trained(Section):
    model: str
    learning_rate: float = 0.1
    packing: bool = False
    steps: Annotated[int, Field(gt=0)] = 1

    @model_validator(mode="after")
    def _packed(self):
        if self.packing and self.steps == 99:
            raise ValueError("packing with 99 steps is not possible; state another number")
        return self


class Random(Section):
    method: Literal["random"]
    seed: int = 0


class Deita(Section):
    method: Literal["deita"]
    threshold: float = 0.9


def _form(value):
    return "released" if "dataset" in value else "trained"


class Recipe(Section):
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    sft: Released | Trained | None = None
    select: Annotated[Random | Deita, Field(discriminator="method")] | None = None
    dpo: Annotated[Annotated[Released, Tag("released")] | Annotated[Trained, Tag("trained")], Discriminator(_form)] = (
        None
    )
    scorers: dict[str, Trained] = {}
    sources: list[Released] = []
    tasks: dict[str, list[Released | Trained]] = {}
    budget: int | str | list[int] = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    free: dict[str, Any] = {}
    renamed: int = Field(default=1, alias="batch-size")
    pair: Annotated[list[float], Field(min_length=2)] = [0.0, 1.0]
    built: dict[str, Any] = {}

    @field_validator("built")
    @classmethod
    def _build(cls, value):
        return value and Released.model_validate(value).model_dump()


def lines(data, **options):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    error = explain(caught.value, model=Recipe, path="r.yaml", positions=options.pop("positions", None), **options)
    assert isinstance(error, UserError)
    return [line.removeprefix("r.yaml: ") for line in str(error).splitlines()]


CASES = [
    ({"budgt": 3}, "budgt: unknown key (did you mean budget?)"),
    ({"scorers": {"quality": {"model": "x", "stepz": 3}}}, "scorers.quality.stepz: unknown key (did you mean steps?)"),
    ({"sources": [{"dataset": "x"}, {"dataset": "x", "zz": 1}]},
     "sources.1.zz: unknown key; allowed: dataset, revision"),
    ({"batchsize": 3}, "batchsize: unknown key (did you mean batch-size?)"),
    ({"qqqq": 3}, "qqqq: unknown key; allowed: name, sft, select, dpo, scorers, sources, tasks, budget, dtype, "
     "share, free, batch-size, pair, built"),
    ({"scorers": {"quality": {}}}, "scorers.quality.model: missing key"),
    ({"scorers": {"quality": None}},
     "scorers.quality: null is no value; a mapping wanted (the section is empty: fill it or remove the key)"),
    ({"scorers": {"q": {"model": "x", "packing": "no"}}},
     "scorers.q.packing: 'no' is text; true or false wanted (YAML 1.2 reads no as text)"),
    ({"scorers": {"q": {"model": 7}}}, "scorers.q.model: 7 is a whole number; text wanted (put it in quotes)"),
    ({"scorers": {"q": {"model": "x", "steps": 1.5}}},
     "scorers.q.steps: 1.5 is a decimal number; a whole number wanted"),
    ({"scorers": {"q": {"model": "x", "steps": 0}}}, "scorers.q.steps: 0 is a whole number; more than 0 wanted"),
    ({"scorers": {"q": {"model": "x", "learning_rate": "2e-5"}}},
     "scorers.q.learning_rate: '2e-5' is text; a number wanted (write it without quotes and underscores)"),
    ({"scorers": {"q": {"model": "x", "packing": True, "steps": 99}}},
     "scorers.q: packing with 99 steps is not possible; state another number"),
    ({"sources": {}}, "sources: {} is a mapping; a list wanted"),
    ({"scorers": []}, "scorers: [] is a list; a mapping wanted"),
    ({"dtype": "bfloat"}, "dtype: 'bfloat' is not allowed (did you mean bfloat16?); float32 or bfloat16 wanted"),
    ({"dtype": 16}, "dtype: 16 is a whole number; 'float32' or 'bfloat16' wanted"),
    ({"share": 1.5}, "share: 1.5 is a decimal number; at most 1.0 wanted"),
    ({"share": -1}, "share: -1 is a whole number; at least 0.0 wanted"),
    ({"pair": [0.5]}, "pair: [0.5] is a list; at least 2 items wanted"),
    ({"name": "A b"}, "name: 'A b' is text; text like ^[a-z]+$ wanted"),
    ({"free": {1: 2}}, "free.1: 1 is a whole number; text wanted (put it in quotes)"),
    ({"built": {"datset": "x", "dataset": "y"}}, "built.datset: unknown key"),
    # unions: only the branch that was meant, without its label
    ({"sft": {"model": "x", "lerning_rate": 1}}, "sft.lerning_rate: unknown key (did you mean learning_rate?)"),
    ({"sft": {"dataset": "x", "revison": "y"}}, "sft.revison: unknown key (did you mean revision?)"),
    ({"sft": {"model": "x", "packing": "no"}},
     "sft.packing: 'no' is text; true or false wanted (YAML 1.2 reads no as text)"),
    ({"sft": "x"}, "sft: 'x' is text; a mapping wanted"),
    ({"tasks": {"a": [{"model": "x"}, {"dataset": "x", "revision": 3}]}},
     "tasks.a.1.revision: 3 is a whole number; text wanted (put it in quotes)"),
    ({"budget": 1.5}, "budget: 1.5 is a decimal number; a whole number, text or a list wanted (put it in quotes)"),
    ({"budget": [1, "x"]}, "budget.1: 'x' is text; a whole number wanted"),
    # discriminated unions
    ({"select": {"method": "deita", "treshold": 1}}, "select.treshold: unknown key (did you mean threshold?)"),
    ({"select": {"method": "random", "seed": "1"}},
     "select.seed: '1' is text; a whole number wanted (write it without quotes and underscores)"),
    ({"select": {"method": "dieta"}},
     "select.method: 'dieta' is not allowed (did you mean deita?); random or deita wanted"),
    ({"select": {"seed": 1}}, "select.method: missing key"),
    ({"dpo": {"dataset": "x", "revison": "y"}}, "dpo.revison: unknown key (did you mean revision?)"),
    ({"dpo": {"model": "x", "steps": "no"}}, "dpo.steps: 'no' is text; a whole number wanted"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "line"), CASES)
def test_a_problem_is_one_line(data, line):
    assert lines(data) == [line]


FILE = """\
name: a
sft:
  model: x
  stepz: 3
scorers:
  complexity:
    model: x
    packing: no
  quality: {}
share: 2
"""


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(FILE)
    return load_yaml(path)


def test_lines_name_the_file_s_line_and_follow_its_order(read):
    data, positions = read
    assert lines(data, positions=positions) == [
        "r.yaml:4: sft.stepz: unknown key (did you mean steps?)",
        "r.yaml:8: scorers.complexity.packing: 'no' is text; true or false wanted (YAML 1.2 reads no as text)",
        "r.yaml:9: scorers.quality.model: missing key",
        "r.yaml:10: share: 2 is a whole number; at most 1.0 wanted",
    ]


def test_a_value_from_the_command_line_is_reported_under_its_setting(read):
    data, positions = read
    sets = ["share=1", "share=2", "scorers.quality={}"]
    assert lines(data, positions=positions, sets=sets)[2:] == [
        "--set scorers.quality={}: scorers.quality.model: missing key",
        "--set share=2: share: 2 is a whole number; at most 1.0 wanted",
    ]


def test_at_most_twenty_lines_are_shown():
    shown = lines({f"zz{number}": 1 for number in range(27)})
    assert len(shown) == 21
    assert shown[-1] == "and 7 more"
    assert len(lines({f"zz{number}": 1 for number in range(20)})) == 20


def test_a_problem_of_the_whole_recipe_names_the_file():
    error = report_problems([((), "two sections miss")], path="r.yaml", positions=Positions({(): 3}))
    assert str(error) == "r.yaml:3: two sections miss"


def test_problems_found_elsewhere_are_located_the_same_way(read):
    _, positions = read
    error = report_problems(
        [(("share",), "too much"), (("scorers", "complexity", "trainer"), "wrong")], path="r.yaml", positions=positions
    )
    assert str(error).splitlines() == ["r.yaml:6: scorers.complexity.trainer: wrong", "r.yaml:10: share: too much"]


def test_nearest_is_offered_here_too():
    assert nearest("lerning_rate", ["learning_rate"]) == "learning_rate"
