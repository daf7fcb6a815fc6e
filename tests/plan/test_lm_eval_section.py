"""`evaluate.lm_eval:` in the plan: which stages it adds, and what decides their keys."""

import json
import re

import pytest
from lm_eval_tasks import write_choice_task, write_rows
from tiny_recipe import dpo_recipe, no_gpus, plan, recipe, write  # noqa: F401

from deita_train.errors import UserError
from deita_train.plan import inputs
from deita_train.plan.plan import make_plan
from deita_train.plan.task_files import files_outside

pytestmark = pytest.mark.usefixtures("no_gpus")
SECTION = {"tasks": ["open_llm_v1"]}


@pytest.fixture(autouse=True)
def version(monkeypatch):
    """The harness's version, whether it is installed here or not."""
    monkeypatch.setattr(inputs, "version", lambda package: "0.4.13")


def nodes(folder, whole=None, **section):
    return plan(folder, whole or recipe(evaluate__lm_eval={**SECTION, **section})).cells[0].nodes


def key(folder, **section):
    return nodes(folder, **section)["lm_eval.sft"].key


def refusal(folder, data):
    with pytest.raises(UserError) as caught:
        plan(folder, data)
    return re.sub(r"yaml:\d+: ", "yaml: ", str(caught.value))


def test_every_model_or_those_that_are_named_are_measured(tmp_path):
    found = nodes(tmp_path, dpo_recipe(evaluate__lm_eval=SECTION))
    assert [label for label in found if label.startswith("lm_eval")] == ["lm_eval.base", "lm_eval.sft", "lm_eval.dpo"]
    assert found["lm_eval.dpo"].parents == {"model": found["dpo"]}
    named = nodes(tmp_path, dpo_recipe(evaluate__lm_eval=SECTION, evaluate__models=["dpo"]))
    assert [label for label in named if label.startswith("lm_eval")] == ["lm_eval.dpo"]
    assert "evaluate.models: dpo: the recipe has no such model; it has base, sft." in refusal(
        tmp_path, recipe(evaluate__lm_eval=SECTION, evaluate__models=["dpo"])
    )


def test_what_decides_a_figure_is_in_the_key(tmp_path, monkeypatch):
    changes = [
        {}, {"tasks": ["hellaswag"]}, {"tasks": ["hellaswag"], "num_fewshot": 3}, {"limit": 9}, {"seed": 1234},
        {"chat_template": True}, {"batch_size": 4},
    ]  # fmt: skip
    keys = [key(tmp_path, **change) for change in changes]
    assert len(set(keys)) == len(changes)
    assert key(tmp_path, optional=True) == keys[0]
    monkeypatch.setattr(inputs, "version", lambda package: "0.4.14")
    assert key(tmp_path) != keys[0]


def test_task_folders_and_the_data_that_they_name_count_by_content(tmp_path):
    folder = tmp_path / "tasks"
    outside = write_rows(tmp_path / "elsewhere" / "rows.jsonl", [{"question": "a"}])
    write_choice_task(folder)
    (folder / "more.yaml").write_text(
        f"include: ../base.yaml\ntask: more\ndoc_to_text: !function utils.text\n"
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {outside}}}}}\n"
    )
    (folder / "broken.yaml").write_text("task: [")
    base = tmp_path / "base.yaml"
    base.write_text("output_type: generate_until\n")
    assert files_outside(folder) == [base, tmp_path / "elsewhere" / "rows.jsonl"]
    section = {"tasks": ["more"], "include": str(folder)}
    keys = [key(tmp_path, **section)]
    for file in (folder / "data" / "local_choice.jsonl", tmp_path / "elsewhere" / "rows.jsonl", base):
        file.write_text(file.read_text() + "\n")
        keys.append(key(tmp_path, **section))
    assert len(set(keys)) == 4
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert key(tmp_path, tasks=["more"], include=[str(moved)]) == keys[-1]
    assert "evaluate.lm_eval.include: " in refusal(tmp_path, recipe(evaluate__lm_eval=section))


def test_local_copies_of_datasets_count_by_content(tmp_path):
    rows = tmp_path / "arc" / "test.jsonl"
    write_rows(rows, [{"question": "a"}])
    first = key(tmp_path, data={"allenai/ai2_arc": str(tmp_path / "arc")})
    write_rows(rows, [{"question": "b"}])
    assert key(tmp_path, data={"allenai/ai2_arc": str(tmp_path / "arc")}) != first
    assert key(tmp_path) != first
    missing = recipe(evaluate__lm_eval={**SECTION, "data": {"cais/mmlu": str(tmp_path / "none")}})
    assert "evaluate.lm_eval.data.cais/mmlu: " in refusal(tmp_path, missing)


def test_without_the_harness_it_is_refused_or_left_out(tmp_path, monkeypatch, capsys):
    def missing(package):
        raise inputs.PackageNotFoundError

    monkeypatch.setattr(inputs, "version", missing)
    data = recipe(evaluate__lm_eval=SECTION)
    assert refusal(tmp_path, data).endswith("evaluate.lm_eval: needs lm-eval: pip install 'deita-train[eval]'.")
    # What the machine has for which it is planned is unknown here.
    assert "lm_eval.sft" in make_plan(write(tmp_path, data), (), tmp_path / "runs", planned_gpus=2).cells[0].nodes
    capsys.readouterr()
    assert not [label for label in nodes(tmp_path, optional=True) if "lm_eval" in label]
    assert "evaluate.lm_eval is left out: lm-eval is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"num_fewshot": 5}, "open_llm_v1 has the shots of the leaderboard; leave num_fewshot: out"),
        ({"tasks": ["a", "b", "a"]}, "name each once"),
        ({"tasks": []}, "tasks"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, section, part):
    assert part in refusal(tmp_path, recipe(evaluate__lm_eval={**SECTION, **section}))


def test_the_plan_is_plain_data(tmp_path):
    node = nodes(tmp_path, include=[str(tmp_path)])["lm_eval.base"]
    json.dumps([node.identity, node.runtime])
