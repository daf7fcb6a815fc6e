"""Answers of a model behind an endpoint, against a server on loopback; and what planning and validating say of them."""

import json
import shutil
from types import SimpleNamespace

import datasets
import pytest
from llm.fake_server import FakeServer, Reply, completion
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.commands.validation import validate_data
from deita_train.errors import UserError
from deita_train.evaluation.dialogues import EARLIER_TURN
from deita_train.evaluation.temperatures import MT_BENCH_TEMPERATURES
from deita_train.plan.inputs import Inputs
from deita_train.plan.plan import make_plan, run_record
from deita_train.plan.sections.answers import add_generate, add_questions, served_model
from deita_train.plan.sections.builder import Builder
from deita_train.recipe.loading import load_recipe
from deita_train.report.page import write_report
from deita_train.run.child.stage_process import run_stage
from deita_train.stages.kinds import STAGE_KINDS
from deita_train.store.atomic_io import read_json, write_json_atomically

pytestmark = pytest.mark.usefixtures("no_gpus")
QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["One?", "Two?"]},
    {"question_id": 2, "category": "math", "turns": ["Cut", "Two?"], "reference": ["4"]},
    {"question_id": 3, "turns": ["Silence", "Two?"]},
]


def says(body):
    """Repeats what was said last, with the number of messages before it."""
    text = body["messages"][-1]["content"]
    if text == "Silence":
        return completion("", finish_reason="stop")
    return completion(f" <{text} {len(body['messages'])}>\n", "length" if text == "Cut" else "stop")


def recipe(folder, url, **answers):
    path = folder / "questions.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in QUESTIONS))
    data = {
        "name": "served",
        "llm": {
            "far": {"base_url": url, "model": "org/far", "price": {"input": 1.0, "output": 2.0}, "max_attempts": 1}
        },
        "evaluate": {
            "llm": "far",
            "answers": {"questions": {"dataset": str(path)}, "max_new_tokens": 30, **answers},
        },
    }
    write_json_atomically(folder / "recipe.yaml", data)
    return folder / "recipe.yaml"


def carried_out(folder, path):
    made = make_plan(path, (), folder / "runs")
    for node in made.nodes:
        run_stage(path, [], folder / "runs", node.id)
    return made, {node.label: made.store.path(node.id) for node in made.nodes}


def test_every_turn_is_asked_after_the_models_own_answer_and_never_twice(tmp_path):
    with FakeServer(says) as server:
        path = recipe(tmp_path, server.url, temperature=0.5)
        _, folders = carried_out(tmp_path, path)
        asked = list(server.requests)
        metrics = read_json(folders["generate.served"] / "metrics.json")
        # The artefact is lost: what was answered is in the store, and only what was not is asked again.
        shutil.rmtree(folders["generate.served"])
        carried_out(tmp_path, path)
        assert [body["messages"][-1]["content"] for body in server.requests[len(asked) :]] == ["Silence"]
    rows = list(datasets.load_from_disk(str(folders["generate.served"] / "data")))
    expected = [
        ("1", 0, "One?", "<One? 1>", 7, True, None),
        ("1", 1, "Two?", "<Two? 3>", 7, True, None),
        ("2", 0, "Cut", "<Cut 1>", 7, False, None),
        ("2", 1, "Two?", "<Two? 3>", 7, True, None),
        ("3", 0, "Silence", None, 0, False, "no_content"),
        ("3", 1, "Two?", None, 0, False, EARLIER_TURN),
    ]
    assert [tuple(row.values()) for row in rows] == expected
    second = {body["messages"][0]["content"]: body for body in asked if len(body["messages"]) == 3}
    assert [message["content"] for message in second["One?"]["messages"]] == ["One?", "<One? 1>", "Two?"]
    assert {(body["temperature"], body["max_tokens"], body["model"]) for body in asked} == {(0.5, 30, "org/far")}
    assert metrics["unanswered"] == {"no_content": 1, EARLIER_TURN: 1} and metrics["truncated_share"] == 0.25
    assert metrics["spending"]["calls"] == len(asked) == 5
    told = STAGE_KINDS["generate"].describe(metrics)
    assert told.startswith("4 of 6 answers (without: no_content 1, earlier_turn_unanswered 1), of 7 tokens on average")
    assert "5 calls" in told


def test_the_report_shows_them_under_the_name_of_the_server(tmp_path):
    with FakeServer(says) as server:
        made, _ = carried_out(tmp_path, recipe(tmp_path, server.url))
    made.run_dir.mkdir(parents=True, exist_ok=True)
    (made.run_dir / "recipe.resolved.yaml").write_text("name: served\n")
    run_record(made).write(made.run_dir)
    report = write_report(made.run_dir, tmp_path / "runs" / "store").with_suffix(".md").read_text()
    section = report[report.index("## Answers") : report.index("## Time")]
    assert "| prompt | org/far |" in section and r"| \(turn 2\) Two? |".replace("\\", "") in section
    assert r"\<One? 1\>" in section and r"(no answer: no\_content)" in section


def test_a_questions_category_decides_where_no_temperature_is_stated(tmp_path):
    """As the sections with a judge plan it: `temperature: null`."""
    loaded = load_recipe(recipe(tmp_path, "http://localhost:1/v1"), ())
    builder = Builder(loaded.recipe, Inputs(tmp_path / "store", tmp_path / "run", tmp_path / "recipe.yaml"))
    evaluate = loaded.recipe.evaluate
    questions = add_questions(builder, "questions.mt_bench", evaluate.answers.questions, "evaluate.mt_bench.questions")
    section = SimpleNamespace(max_new_tokens=9, temperature=None)
    node = add_generate(builder, "generate.x", evaluate, questions, served_model(builder, "far"), None, section)
    assert node.identity == {
        "model": {"served": "org/far"}, "max_new_tokens": 9, "temperature": dict(MT_BENCH_TEMPERATURES),
    }  # fmt: skip


def test_validate_tells_calls_and_what_they_cost_at_most(tmp_path):
    made = make_plan(recipe(tmp_path, "http://localhost:1/v1"), (), tmp_path / "runs")
    found = validate_data(made)
    assert found.problems == []
    assert "questions: 3 rows read, 3 questions with 6 turns, 1 of them with a reference answer" in found.lines
    line = (
        "generate.served: 6 answers to 3 questions, of at most 30 tokens each: 6 calls to llm.far, whose answers cost"
    )
    assert any(told.startswith(line) for told in found.lines)


def test_no_answer_at_all_is_an_error(tmp_path):
    with FakeServer(lambda body: Reply(completion(""))) as server:
        path = recipe(tmp_path, server.url)
        with pytest.raises(UserError, match=r"generate\.served: no question was answered: \{'no_content': 3"):
            carried_out(tmp_path, path)


def test_an_endpoint_that_is_not_there_is_refused(tmp_path):
    path = recipe(tmp_path, "http://localhost:1/v1")
    with pytest.raises(UserError, match=r"evaluate\.llm: llm: has no endpoint 'near'; it has far"):
        make_plan(path, ["evaluate.llm=near"], tmp_path / "runs")
