"""A real small chat model answers and judges behind `transformers serve`, and answers the same questions here.

    pip install 'transformers[serving]'
    DEITA_CHAT_MODEL=path/to/SmolLM2-135M-Instruct pytest -m faults -s tests/asking/test_real_evaluation.py

It tells what came of it; docs/evaluation.md has the outcome for that model.
"""

import json
import shutil
import sys
from unittest.mock import patch

import datasets
import pytest
from judge_stages import endpoint_of, identity_of, judge_context, judged
from real_server import chat_model, served

from deita_train.commands.validation import validate_data
from deita_train.data.everyday import everyday_questions
from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import PAIR, RATE, fastchat_prompts, own_prompts
from deita_train.llm.answers import AnswerStore
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.store.atomic_io import read_json, write_json_atomically

# Slow on a CPU: some sixty answers.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]
QUESTIONS, TURNS, LENGTH = 6, 7, 64
# A judge of this size often goes on without end; its first tokens say as much as all 2,048.
VERDICT = 128


@pytest.fixture(scope="module", autouse=True)
def short_verdicts():
    with (
        patch("deita_train.stages.evaluating.judge_turns.MAX_TOKENS", VERDICT),
        patch("deita_train.evaluation.alpaca_eval.VERDICT_TOKENS", VERDICT),
    ):
        yield


@pytest.fixture(scope="module")
def model():
    return chat_model()


@pytest.fixture(scope="module")
def server(model):
    with served(model) as url:
        yield url


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One folder for all runs, so that what is answered once is in the store of the others."""
    return tmp_path_factory.mktemp("runs")


def carried_out(runs, name, model, server, /, **evaluate):
    """The artefacts by label."""
    judge = {"base_url": server, "model": model, "max_in_flight": 8, "deadline_seconds": 3600.0}
    recipe = runs / f"{name}.yaml"
    write_json_atomically(recipe, {"name": name, "llm": {"judge": judge}, "evaluate": evaluate})
    made = make_plan(recipe, (), runs)
    assert validate_data(made).problems == []
    for node in made.nodes:
        run_stage(recipe, [], runs, node.id)
    return {node.label: made.store.path(node.id) for node in made.nodes}


def answers(runs, name, model, server, /, **who):
    section = {"questions": {"builtin": "everyday", "rows": QUESTIONS}, "max_new_tokens": LENGTH}
    return carried_out(runs, name, model, server, answers=section, **who)


@pytest.fixture(scope="module")
def of_server(runs, model, server):
    return answers(runs, "of_server", model, server, llm="judge")


@pytest.fixture(scope="module")
def of_model(runs, model, server):
    return answers(runs, "of_model", model, server, model=model, max_batch_tokens=1024)


def rows_of(folder):
    return list(datasets.load_from_disk(str(folder / "data")))


def tell(**found):
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def test_a_served_model_answers_and_nothing_is_asked_again(of_server, runs, model, server):
    label = "generate.served"
    rows, metrics = rows_of(of_server[label]), read_json(of_server[label] / "metrics.json")
    assert len(rows) == TURNS and any("Nile" in row["answer"] for row in rows)
    assert metrics["spending"]["failures"] == {} and metrics["spending"]["answers_with_estimated_tokens"] == 0
    before = read_json(of_server[label] / "manifest.json")["content_digest"]
    shutil.rmtree(of_server[label])
    again = answers(runs, "of_server", model, server, llm="judge")[label]
    assert read_json(again / "manifest.json")["content_digest"] == before
    assert read_json(again / "metrics.json")["spending"]["calls"] == 0


def test_the_same_model_answers_the_same_here(of_server, of_model):
    """Prompts and ends of turn are those of the server: the likeliest tokens are the same, but for rounding."""
    there, here = rows_of(of_server["generate.served"]), rows_of(of_model["generate.base"])
    same = [one["answer"] == other["answer"] for one, other in zip(there, here, strict=True)]
    tell(equal_answers=sum(same), of=len(same))
    assert sum(same) >= TURNS - 2


def verdicts_of(folder, identity, model, server, parents):
    """What came of judging: each turn has a score or a reason; a judge of whom nothing can be read ends the stage."""
    context = judge_context(folder, identity, endpoint_of(server, model=model, deadline_seconds=3600.0), parents)
    try:
        rows, metrics = judged(context)
    except UserError as error:
        assert "not one answer has a score" in str(error)
        tell(way=identity["way"], read=0, message=str(error))
    else:
        scores = [row["score"] for row in rows if row["score"] is not None]
        tell(way=identity["way"], read=len(scores), of=TURNS, unusable=metrics["unusable_verdicts"], scores=scores)
        assert len(rows) == TURNS and metrics["spending"]["failures"] == {}
        assert all((row["score"] is None) == (row["reason"] is not None) for row in rows)
        return scores
    return []


def parents_of(of_model, of_server):
    return {
        "questions": of_model["questions"],
        "answers": of_model["generate.base"],
        "baseline": of_server["generate.served"],
    }


@pytest.mark.parametrize("words", ["own", "fastchat"])
def test_answers_are_rated(of_server, of_model, model, server, tmp_path, words, request):
    prompts = own_prompts(RATE)
    if words == "fastchat":
        prompts = fastchat_prompts(RATE, request.getfixturevalue("shared") / "data" / "mt_bench_judge_prompts.jsonl")
    identity = identity_of(RATE, model={"served": model}, prompts=prompts.identity(), ask_again=1)
    parents = {name: folder for name, folder in parents_of(of_model, of_server).items() if name != "baseline"}
    scores = verdicts_of(tmp_path, identity, model, server, parents)
    assert all(1 <= score <= 10 for score in scores)
    assert TURNS <= len(AnswerStore(tmp_path / "answers")) <= 2 * TURNS


def test_two_models_are_compared_in_both_orders(of_server, of_model, model, server, tmp_path):
    identity = identity_of(PAIR, model={"served": model}, ask_again=0, answers_of="base", baseline="base")
    scores = verdicts_of(tmp_path, identity, model, server, parents_of(of_model, of_server))
    assert set(scores) <= {0.0, 0.5, 1.0} and len(AnswerStore(tmp_path / "answers")) <= 2 * TURNS


def test_answers_are_compared_with_given_ones(runs, model, server):
    questions = runs / "questions.json"
    given = [
        {"instruction": row["turns"][0], "output": "I do not know.", "generator": "evasive"}
        for row in everyday_questions()
    ]
    questions.write_text(json.dumps(given))
    section = {"questions": {"dataset": str(questions)}, "judge": "judge", "ask_again": 1, "max_new_tokens": LENGTH}
    made = carried_out(runs, "compared", model, server, llm="judge", alpaca_eval={**section, "weighted": False})
    metrics, rows = read_json(made["alpaca_eval.served"] / "metrics.json"), rows_of(made["alpaca_eval.served"])
    scores = [row["score"] for row in rows]
    tell(way="compare", read=len(rows) - scores.count(None), of=len(rows), unusable=metrics["unusable_verdicts"],
         scores=scores)  # fmt: skip
    assert len(rows) == len(given) and metrics["spending"]["failures"] == {}
    # This server gives no probabilities, and is refused after one call.
    with pytest.raises(UserError, match="weighted"):
        carried_out(runs, "weighted", model, server, llm="judge", alpaca_eval=section)
