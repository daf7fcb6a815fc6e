from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deita_train.errors import UserError
from deita_train.recipe.validation import explain, report_problems
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


class Part(Section):
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    tokens: int | None = None

    @model_validator(mode="after")
    def _one_form(self):
        if (self.share is None) == (self.tokens is None):
            raise ValueError("state share: or tokens:")
        return self


class Scorers(Section):
    complexity: Trained = None
    quality: Trained = None
    q: Trained = None


class Recipe(Section):
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    scorers: Scorers | None = None
    sources: list[Released] = []
    budget: Annotated[int, Field(gt=0)] | Part | None = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    free: dict[str, Any] = {}
    batch_size: int = 1
    pair: Annotated[list[float], Field(min_length=2)] = [0.0, 1.0]
    roles: dict[str, Literal["user", "assistant"]] = {}
    dpo: Released | None = None
    sft: Trained | None = None


def lines(data, **options):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    options = {"path": "r.yaml", "positions": None, **options}
    error = explain(caught.value, model=Recipe, data=data, **options)
    assert isinstance(error, UserError)
    return [line.removeprefix("r.yaml: ") for line in str(error).splitlines()]


CASES = [
    ({"budgt": 3}, "budgt: unknown key (did you mean budget?)"),
    ({"scorers": {"quality": {"model": "x", "stepz": 3}}}, "scorers.quality.stepz: unknown key (did you mean steps?)"),
    ({"sources": [{"dataset": "x"}, {"dataset": "x", "zz": 1}]},
     "sources.1.zz: unknown key; allowed: dataset, revision"),
    ({"batchsize": 3}, "batchsize: unknown key (did you mean batch_size?)"),
    ({"qqqq": 3}, "qqqq: unknown key; allowed: name, scorers, sources, budget, dtype, share, free, batch_size, "
     "pair, roles, dpo, sft"),
    ({"scorers": {"quality": {}}}, "scorers.quality.model: missing key"),
    ({"scorers": {"quality": None}},
     "scorers.quality: null is no value; expected a mapping (the section is empty: fill it or remove the key)"),
    ({"scorers": {"q": {"model": "x", "packing": "no"}}},
     "scorers.q.packing: 'no' is text; expected true or false (YAML 1.2 reads no as text)"),
    ({"scorers": {"q": {"model": 7}}}, "scorers.q.model: 7 is a whole number; expected text (put it in quotes)"),
    ({"scorers": {"q": {"model": "x", "steps": 1.5}}},
     "scorers.q.steps: 1.5 is a decimal number; expected a whole number"),
    ({"scorers": {"q": {"model": "x", "steps": 0}}}, "scorers.q.steps: 0 is a whole number; expected more than 0"),
    ({"scorers": {"q": {"model": "x", "learning_rate": "2e-5"}}},
     "scorers.q.learning_rate: '2e-5' is text; expected a number (write it without quotes and underscores)"),
    ({"scorers": {"q": {"model": "x", "packing": True, "steps": 99}}},
     "scorers.q: packing with 99 steps is not possible; state another number"),
    ({"sources": {}}, "sources: {} is a mapping; expected a list"),
    ({"scorers": []}, "scorers: [] is a list; expected a mapping"),
    ({"dtype": "bfloat"}, "dtype: 'bfloat' is not allowed (did you mean bfloat16?); expected float32 or bfloat16"),
    ({"dtype": 16}, "dtype: 16 is a whole number; expected 'float32' or 'bfloat16'"),
    ({"share": 1.5}, "share: 1.5 is a decimal number; expected at most 1.0"),
    ({"share": -1}, "share: -1 is a whole number; expected at least 0.0"),
    ({"pair": [0.5]}, "pair: [0.5] is a list; expected at least 2 items"),
    ({"name": "A b"}, "name: 'A b' is text; expected text like ^[a-z]+$"),
    ({"free": {1: 2}}, "free.1: 1 is a whole number; expected text (put it in quotes)"),
    ({"roles": {"human": "person"}}, "roles.human: 'person' is not allowed; expected user or assistant"),
    ({"sft": {"model": "x", "lerning_rate": 1}}, "sft.lerning_rate: unknown key (did you mean learning_rate?)"),
    ({"dpo": {"dataset": "x", "revison": "y"}}, "dpo.revison: unknown key (did you mean revision?)"),
    ({"sft": "x"}, "sft: 'x' is text; expected a mapping"),
    # a union of a number and a section: what was meant, without its label
    ({"budget": 1.5}, "budget: 1.5 is a decimal number; expected a whole number or a mapping"),
    ({"budget": 0}, "budget: 0 is a whole number; expected more than 0 or a mapping"),
    ({"budget": [1]}, "budget: [1] is a list; expected a whole number or a mapping"),
    ({"budget": {"share": 2}}, "budget.share: 2 is a whole number; expected at most 1.0"),
    ({"budget": {"shar": 0.5}}, "budget.shar: unknown key (did you mean share?)"),
    ({"budget": {"share": "1", "token": 5}}, "budget.share: '1' is text; expected a number (write it without quotes "
     "and underscores)\nbudget.token: unknown key (did you mean tokens?)"),
    ({"budget": {}}, "budget: state share: or tokens:"),
    ({"budget": {"share": 0.5, "tokens": 3}}, "budget: state share: or tokens:"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "line"), CASES)
def test_a_problem_is_one_line(data, line):
    assert lines(data) == line.splitlines()


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
        "r.yaml:8: scorers.complexity.packing: 'no' is text; expected true or false (YAML 1.2 reads no as text)",
        "r.yaml:9: scorers.quality.model: missing key",
        "r.yaml:10: share: 2 is a whole number; expected at most 1.0",
    ]


def test_a_value_from_the_command_line_is_reported_under_its_setting(read):
    data, positions = read
    sets = ["share=1", "share=2", "scorers.quality={}"]
    assert lines(data, positions=positions, sets=sets)[2:] == [
        "--set scorers.quality={}: scorers.quality.model: missing key",
        "--set share=2: share: 2 is a whole number; expected at most 1.0",
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
