"""A real small chat model answers and judges behind `transformers serve`, and answers the same questions here.

pip install 'transformers[serving]'
DEITA_CHAT_MODEL=path/to/SmolLM2-135M-Instruct make test-faults
"""

import json
import shutil
from unittest.mock import patch

import datasets
import pytest
from judge_stages import endpoint_of, identity_of, judge_context, judged
from real_server import chat_model, served

from deita_train.commands.validation import validate_data
from deita_train.data.everyday import everyday_questions
from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import PAIR
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.store.atomic_io import read_json, write_json_atomically

# Slow on a CPU: some fifty answers of a judge that does not always end.
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


def carried_out(runs, name, model, server, **evaluate):
    """The artefacts by label."""
    judge = {"base_url": server, "model": model, "max_in_flight": 8, "deadline_seconds": 3600.0,
             "price": {"input": 1.0, "output": 2.0}}  # fmt: skip
    recipe = runs / f"{name}.yaml"
    write_json_atomically(recipe, {"name": name, "llm": {"judge": judge}, "evaluate": evaluate})
    made = make_plan(recipe, (), runs)
    assert validate_data(made).problems == []
    for node in made.nodes:
        run_stage(recipe, [], runs, node.id)
    return {node.label: made.store.path(node.id) for node in made.nodes}


def everyday(**more):
    return {"judge": "judge", "ask_again": 1, "max_new_tokens": LENGTH, **more}


def rated(runs, name, model, server, **who):
    section = everyday(questions={"builtin": "everyday", "rows": QUESTIONS}, temperature=0.0)
    return carried_out(runs, name, model, server, judged=section, **who)


@pytest.fixture(scope="module")
def of_server(runs, model, server):
    return rated(runs, "of_server", model, server, llm="judge")


@pytest.fixture(scope="module")
def of_model(runs, model, server):
    return rated(runs, "of_model", model, server, model=model, max_batch_tokens=1024)


def rows_of(folder):
    return list(datasets.load_from_disk(str(folder / "data")))


def check_ratings(folder):
    metrics, rows = read_json(folder / "metrics.json"), rows_of(folder)
    print(json.dumps({name: value for name, value in metrics.items() if name != "results"}, indent=1))
    print([(row["id"], row["score"], row["reason"], row["verdicts"]) for row in rows])
    assert len(rows) == TURNS and metrics["spending"]["failures"] == {}
    assert metrics["spending"]["answers_with_estimated_tokens"] == 0
    for row in rows:
        assert (row["score"] is None) == (row["reason"] is not None)
        assert row["score"] is None or 1 <= row["score"] <= 10
    return metrics


def test_a_real_model_is_rated_by_a_real_judge(of_server, runs, model, server):
    check_ratings(of_server["judged.served"])
    answers = rows_of(of_server["generate.judged.served"])
    assert len(answers) == TURNS and any("Nile" in row["answer"] for row in answers)
    # Again, without the artefact: from the store, with the same bytes.
    before = read_json(of_server["judged.served"] / "manifest.json")["content_digest"]
    shutil.rmtree(of_server["judged.served"])
    again = rated(runs, "of_server", model, server, llm="judge")["judged.served"]
    assert read_json(again / "manifest.json")["content_digest"] == before
    assert read_json(again / "metrics.json")["spending"]["calls"] == 0


def test_the_same_model_answers_the_same_here(of_server, of_model):
    """Prompts and ends of turn are those of the server: the likeliest tokens are the same, but for rounding."""
    there, here = (rows_of(made[label]) for made, label in (
        (of_server, "generate.judged.served"), (of_model, "generate.judged.base"),
    ))  # fmt: skip
    same = [one["answer"] == other["answer"] for one, other in zip(there, here, strict=True)]
    print(
        "equal answers:", sum(same), "of", len(same), [row["tokens"] for row in there], [row["tokens"] for row in here]
    )
    assert sum(same) >= TURNS - 2
    check_ratings(of_model["judged.base"])


def test_two_models_are_compared_in_both_orders(of_server, of_model, model, server, tmp_path):
    identity = identity_of(PAIR, model={"served": model}, ask_again=1, answers_of="base", baseline="base")
    parents = {
        "questions": of_model["questions.judged"],
        "answers": of_model["generate.judged.base"],
        "baseline": of_server["generate.judged.served"],
    }
    context = judge_context(tmp_path, identity, endpoint_of(server, model=model, deadline_seconds=3600.0), parents)
    rows, metrics = judged(context)
    print(metrics["unusable_verdicts"], [(row["score"], row["reason"], row["verdicts"]) for row in rows])
    assert len(rows) == TURNS and metrics["spending"]["failures"] == {}
    assert {row["score"] for row in rows} <= {None, 0.0, 0.5, 1.0}


def test_answers_are_compared_with_given_ones(runs, model, server):
    questions = runs / "questions.json"
    given = [
        {"instruction": row["turns"][0], "output": "I do not know.", "generator": "evasive"}
        for row in everyday_questions()
    ]
    questions.write_text(json.dumps(given))
    section = everyday(questions={"dataset": str(questions)})
    made = carried_out(runs, "compared", model, server, llm="judge", alpaca_eval={**section, "weighted": False})
    metrics, rows = read_json(made["alpaca_eval.served"] / "metrics.json"), rows_of(made["alpaca_eval.served"])
    print(metrics["unusable_verdicts"], metrics.get("results"), [(row["score"], row["verdicts"]) for row in rows])
    assert len(rows) == len(given) and metrics["spending"]["failures"] == {}
    # This server gives no probabilities, and is refused after one call.
    with pytest.raises(UserError, match="weighted"):
        carried_out(runs, "weighted", model, server, llm="judge", alpaca_eval=section)
