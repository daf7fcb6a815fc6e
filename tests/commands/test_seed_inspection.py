"""`inspect` of the stages that ask a chat model about seeds: before, during and after the asking."""

import json

import pytest
from tiny_recipe import no_gpus, plan, recipe, write  # noqa: F401
from typer.testing import CliRunner

from deita_train.cli import app
from deita_train.commands.inspection import choose_stage, inspect_row
from deita_train.commands.seed_inspection import inspect_seed
from deita_train.errors import UserError
from deita_train.llm.answers import Answer, AnswerStore, Failure
from deita_train.llm.requests import ChatRequest
from deita_train.run.child.stage_process import run_stage

pytestmark = pytest.mark.usefixtures("no_gpus")
SEEDS = [
    {"id": "a", "instruction": "Name a river.", "output": "The Rhine."},
    {"id": "b", "instruction": "Name a lake.", "output": "Lake Garda."},
]


@pytest.fixture
def made(tmp_path):
    (tmp_path / "seeds.jsonl").write_text("\n".join(map(json.dumps, SEEDS)))
    data = {
        "name": "labels",
        "llm": {"judge": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}},
        "evolve": {
            "seeds": {"dataset": str(tmp_path / "seeds.jsonl")},
            "llm": "judge",
            "complexity": {"evolutions": 2, "orders": 2, "ask_again": 1},
            "quality": {"evolutions": 1},
        },
    }
    return plan(tmp_path, data)


def shown(made, label, seed_id=None):
    found = inspect_seed(made, choose_stage(made, label), seed_id)
    return dict(found.facts), [(exchange.title.split(",")[0], exchange.outcome) for exchange in found.exchanges], found


def keep(made, exchange, outcome, *, temperature=0.7, max_tokens=1024, json_object=False, attempt=0):
    """Keep an answer to a question that `inspect` shows, as the stages do."""
    messages = ({"role": "user", "content": exchange.question},)
    request = ChatRequest(messages, temperature, max_tokens, json_object, attempt)
    AnswerStore(made.runs_dir / "answers").add(request.key("m"), request, outcome)


def test_before_the_asking_the_first_question_is_shown(made):
    facts, exchanges, found = shown(made, None)
    assert facts["stage"].startswith("evolve.complexity: ") and facts["seed"] == "a (the first)"
    assert facts["asked"] == "llm.judge, m" and facts["seeds"] == "2 seeds, read from their source"
    assert facts["chain"] == "0 of 2 steps made, by the answers that are kept"
    assert exchanges == [("step 1", "not answered yet")]
    assert "\nName a river.\n" in found.exchanges[0].question and found.exchanges[0].answer is None
    (question,) = shown(made, "evolve.quality", "b")[2].exchanges
    assert "\nName a lake.\n" in question.question and "\nLake Garda.\n" in question.question
    facts, exchanges, found = shown(made, "rank.complexity", "b")
    assert exchanges == [("ranking 1 of 2", "not answered yet"), ("ranking 2 of 2", "not answered yet")]
    assert facts["versions"] == "step 0 the seed" and "has not made all steps yet" in facts["note"]


def test_the_answers_that_are_kept_lead_on(made):
    _, _, found = shown(made, "evolve.complexity")
    keep(made, found.exchanges[0], Answer("<evolved>Name a river!</evolved>", "stop", 1, 1))
    _, exchanges, found = shown(made, "evolve.complexity")
    assert exchanges == [("step 1", "dropped: copy"), ("step 2", "not answered yet")]
    assert found.exchanges[0].answer == "<evolved>Name a river!</evolved>"
    keep(made, found.exchanges[1], Failure("deadline", "no answer within 600 s"), attempt=1)
    assert shown(made, "evolve.complexity")[1][1] == ("step 2", "failed: deadline (no answer within 600 s)")
    keep(made, found.exchanges[1], Answer("Name two rivers of Italy.", "stop", 1, 1), attempt=1)
    assert shown(made, "evolve.complexity")[1] == [("step 1", "dropped: copy"), ("step 2", "kept")]

    facts, exchanges, found = shown(made, "rank.complexity")
    assert "note" not in facts and facts["versions"].count("copy") == 1 and facts["versions"].endswith(" ok")
    question = found.exchanges[0].question
    assert "Name a river.\n" in question and "Name two rivers of Italy.\n" in question
    how = {"temperature": 0.0, "json_object": True}
    keep(made, found.exchanges[0], Answer("I cannot say", "stop", 1, 1), **how)
    _, exchanges, found = shown(made, "rank.complexity")
    assert exchanges[:2] == [("ranking 1 of 2", "unusable: no_scores"), ("ranking 1 of 2", "not answered yet")]
    again = found.exchanges[1]
    assert again.title == "ranking 1 of 2, asked again (1)"
    first_is_seed = again.question.index("Name a river.") < again.question.index("Name two rivers")
    keep(made, again, Answer('{"1": 2, "2": 5}', "stop", 1, 1), attempt=1, **how)
    of_seed, of_other = (2, 5) if first_is_seed else (5, 2)
    assert shown(made, "rank.complexity")[1][1] == ("ranking 1 of 2", f"scores: step 0: {of_seed}, step 2: {of_other}")


def test_a_seed_with_nothing_to_compare_is_not_ranked(made):
    for _ in range(2):
        _, _, found = shown(made, "evolve.complexity")
        keep(made, found.exchanges[-1], Answer("I'm sorry, but no.", "stop", 1, 1), attempt=len(found.exchanges) - 1)
    facts, exchanges, _ = shown(made, "rank.complexity")
    assert exchanges == [] and facts["note"] == "only the seed itself is good, so there is nothing to compare it with"


def test_a_published_chain_is_shown_without_its_answers(made):
    node = made.cells[0].nodes["evolve.quality"]
    for seed_id in ("a", "b"):
        (exchange,) = shown(made, "evolve.quality", seed_id)[2].exchanges
        keep(made, exchange, Answer(f"<evolved>A better one of {seed_id}.</evolved>", "stop", 1, 1))
    for label in ("seeds", "evolve.quality"):
        run_stage(made.loaded.path, [], made.runs_dir, made.cells[0].nodes[label].id)
    for file in (made.runs_dir / "answers").iterdir():
        file.unlink()
    facts, exchanges, found = shown(made, "evolve.quality", "b")
    assert facts["chain"] == f"1 of 1 steps made, {node.id}" and exchanges == [("step 1", "kept")]
    assert found.exchanges[0].answer == "<evolved>A better one of b.</evolved>"


def test_the_command_prints_questions_and_answers(made):
    _, _, found = shown(made, "evolve.complexity")
    keep(made, found.exchanges[0], Answer("Name two rivers.\x1b[2J", "stop", 1, 1))
    words = ["inspect", str(made.loaded.path), "--runs", str(made.runs_dir), "--stage", "evolve.complexity"]
    printed = CliRunner().invoke(app, [*words, "--row", "a"], catch_exceptions=False).output
    assert "seed        a\n" in printed and "step 1, " in printed and ": kept ---" in printed
    assert "\nanswer ---" in printed and "Name two rivers.\\x1b[2J" in printed and "\x1b" not in printed
    with pytest.raises(
        UserError, match=r"--row x: evolve\.complexity has no such seed \(2 seeds, .*\); the first are a;"
    ):
        shown(made, "evolve.complexity", "x")


def test_a_scorers_rows_are_those_that_are_ranked(tmp_path):
    data = recipe(
        llm={"judge": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}},
        evolve={"seeds": {"builtin": "quickstart", "rows": 4}, "llm": "judge", "quality": {}},
    )
    data["scorers"]["quality"]["train"]["data"] = "evolve"
    made = plan(tmp_path, data)
    with pytest.raises(UserError, match=r"takes the tokenizer of base, which is not made yet"):
        inspect_row(made, "train_scorer.quality", None)
