"""From a recipe to figures: planned, validated and carried out, with a model and a judge on loopback or built in."""

import json
import re

import datasets
import pytest
from llm.fake_server import FakeServer
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.commands.validation import validate_data
from deita_train.data.quickstart.solver import solve
from deita_train.errors import UserError
from deita_train.plan.plan import make_plan
from deita_train.run.child.stage_process import run_stage
from deita_train.store.atomic_io import read_json, write_json_atomically

pytestmark = pytest.mark.usefixtures("no_gpus")
QUICKSTART = {"builtin": "quickstart_questions", "rows": 6}
RULES = {"builtin": "quickstart"}


def served(url):
    return {"base_url": url, "model": "m", "price": {"input": 1.0, "output": 2.0}}


def write_recipe(folder, evaluate=None, llm=None, **sections):
    data = {"name": "judged", "seed": 3, "llm": llm, **sections}
    if evaluate is not None:
        data["evaluate"] = evaluate
    write_json_atomically(folder / "recipe.yaml", data)
    return folder / "recipe.yaml"


def planned(folder, *args, **sections):
    return make_plan(write_recipe(folder, *args, **sections), (), folder / "runs")


def carried_out(folder, *args, **sections):
    """The artefacts by label, and the lines of `validate`."""
    path = write_recipe(folder, *args, **sections)
    made = make_plan(path, (), folder / "runs")
    checked = validate_data(made)
    assert checked.problems == []
    for node in made.nodes:
        run_stage(path, [], folder / "runs", node.id)
    return {node.label: made.store.path(node.id) for node in made.nodes}, checked


def metrics_of(made, label):
    return read_json(made[label] / "metrics.json")


def knows_every_second(body):
    """A model that solves half of the tasks, and says nothing to the others."""
    reading = solve(body["messages"][-1]["content"])
    is_known = len(reading.task.instruction) % 2 == 0
    return f"It is {reading.task.answer}." if is_known else "It depends on what you want."


def test_generated_answers_are_rated_by_the_built_in_rules(tmp_path):
    with FakeServer(knows_every_second) as server:
        llm = {"model": served(server.url), "judge": RULES}
        evaluate = {"llm": "model", "judged": {"questions": QUICKSTART, "judge": "judge"}}
        made, checked = carried_out(tmp_path, evaluate, llm)
    assert list(made) == ["questions.judged", "generate.judged.served", "judged.served"]
    rows = datasets.load_from_disk(str(made["judged.served"] / "data"))
    answers = {
        row["id"]: row["answer"] for row in datasets.load_from_disk(str(made["generate.judged.served"] / "data"))
    }
    assert [row["score"] for row in rows] == [1.0 if "depends" in answers[row["question_id"]] else 7.0 for row in rows]
    found = metrics_of(made, "judged.served")
    assert found["results"]["overall"]["value"] == pytest.approx(sum(row["score"] for row in rows) / 6)
    assert set(found["results"]) > {"overall"} and "no model but rules" in found["notes"][0]
    assert any("rules of this package, which cost nothing" in line for line in map(str, checked.lines))


def test_the_built_in_rules_make_labels_by_evolution(tmp_path):
    evolve = {
        "seeds": {"builtin": "quickstart", "rows": 12}, "llm": "judge", "complexity": {"evolutions": 2},
        "quality": {"evolutions": 2},
    }  # fmt: skip
    made, _ = carried_out(tmp_path, None, {"judge": RULES}, evolve=evolve)
    for row in datasets.load_from_disk(str(made["rank.complexity"] / "data")):
        assert int(row["target"]) == solve(row["instruction"]).task.complexity
    assert len(datasets.load_from_disk(str(made["rank.quality"] / "data"))) > 10


@pytest.mark.parametrize(
    ("benchmark", "field", "message"),
    [
        ({"judged": {"questions": QUICKSTART, "judge": "nobody"}}, "judged.judge", "llm: has no endpoint 'nobody'"),
        (
            {"judged": {"questions": QUICKSTART, "judge": "judge", "baseline": "base"}},
            "judged.baseline",
            "base is compared with the other models that answer, and those are served",
        ),
        (
            {"judged": {"questions": QUICKSTART, "judge": "judge", "prompts": "x.jsonl"}},
            "judged.prompts",
            "which read only the package's words",
        ),
        (
            {"mt_bench": {"questions": QUICKSTART, "judge": "model", "prompts": "none.jsonl"}},
            "mt_bench",
            "none.jsonl cannot be read",
        ),
        (
            {"alpaca_eval": {"questions": QUICKSTART, "judge": "judge"}},
            "alpaca_eval.weighted",
            "State weighted: false",
        ),
        (
            {"alpaca_eval": {"questions": QUICKSTART, "judge": "model", "prompts": "folder"}},
            "alpaca_eval",
            "folder has no compare.jinja",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused_by_the_plan(tmp_path, benchmark, field, message):
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        planned(tmp_path, {"llm": "model", **benchmark}, {"model": served("http://localhost:1/v1"), "judge": RULES})
    assert f"evaluate.{field}" in str(refused.value)


def test_every_other_model_is_compared_with_the_baseline(tmp_path):
    trainer = {"learning_rate": 0.001, "num_train_epochs": 1}
    base = {
        "builtin": "miniature",
        "pretrain": {
            "data": {"builtin": "quickstart_pretraining", "rows": 50},
            "global_batch_size": 8,
            "trainer": trainer,
        },
    }
    sft = {"model": "base", "data": {"builtin": "quickstart", "rows": 20}, "global_batch_size": 8, "trainer": trainer}
    judged = {"questions": QUICKSTART, "judge": "judge", "baseline": "base"}
    made = planned(tmp_path, {"judged": judged}, {"judge": RULES}, base=base, sft=sft)
    (judging,) = [node for node in made.nodes if node.kind == "judge"]
    assert judging.label == "judged.sft" and judging.identity["baseline"] == "base"
    assert {name: node.label for name, node in judging.parents.items()} == {
        "questions": "questions.judged", "answers": "generate.judged.sft", "baseline": "generate.judged.base"
    }  # fmt: skip
    made = planned(tmp_path, {"judged": {**judged, "baseline": None}}, {"judge": RULES}, base=base, sft=sft)
    rated = [node for node in made.nodes if node.kind == "judge"]
    assert [node.label for node in rated] == ["judged.base", "judged.sft"]
    assert rated[0].identity["model"] == {"builtin": "quickstart", "version": 1}


def test_mt_bench_on_its_published_files(tmp_path, shared):
    """Two of the published questions, one with a reference, by the published prompts."""
    data = shared / "data"
    lines = [json.loads(line) for line in (data / "mt_bench_questions.jsonl").read_text().splitlines()]
    chosen = [row for row in lines if row["question_id"] in (81, 101)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, chosen)))

    def answers(body):
        text = body["messages"][-1]["content"]
        return "Rating: [[6]]" if "[The Start of" in text or "<|The Start of" in text else "My answer."

    questions = {
        "dataset": str(tmp_path / "questions.jsonl"), "references": str(data / "mt_bench_reference_answers.jsonl")
    }  # fmt: skip
    section = {"questions": questions, "judge": "model", "prompts": str(data / "mt_bench_judge_prompts.jsonl")}
    with FakeServer(answers) as server:
        made, checked = carried_out(tmp_path, {"llm": "model", "mt_bench": section}, {"model": served(server.url)})
        asked = [body["messages"] for body in server.requests if body["messages"][0]["role"] == "system"]
    found = metrics_of(made, "mt_bench.served")
    assert list(found["results"]) == ["overall", "turn 1", "turn 2", "writing", "reasoning"]
    assert found["results"]["overall"]["value"] == 6.0 and found["title"] == "MT-Bench" and found["with_reference"] == 2
    assert sum("Reference" in messages[1]["content"] for messages in asked) == 2 and len(asked) == 4
    assert any("mt_bench.served: 4 calls to llm.model about 2 questions, 12 at most" in line for line in checked.lines)


def test_alpaca_eval_on_published_annotations(tmp_path, shared):
    """The published answers of both sides as questions and answers, judged by who is longer; against a hand count."""
    import gzip

    file = shared / "data" / "alpaca_eval" / "deita-7b-v1.0.alpaca_eval_1.annotations.json.gz"
    rows = json.loads(gzip.decompress(file.read_bytes()))[:40]
    questions = [
        {"instruction": row["instruction"], "output": row["output_1"], "generator": row["generator_1"],
         "dataset": row["dataset"]}
        for row in rows
    ]  # fmt: skip
    (tmp_path / "questions.json").write_text(json.dumps(questions))
    outputs = {row["instruction"]: row["output_2"] for row in rows}

    def plays(body):
        text = body["messages"][-1]["content"]
        if "Answer with one letter" not in text:
            return outputs[text]
        first, second = re.findall(r"^Answer [AB]:\n(=+)\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL)
        return "A" if len(first[1]) > len(second[1]) else "B"

    section = {"questions": {"dataset": str(tmp_path / "questions.json")}, "judge": "model", "weighted": False}
    with FakeServer(plays) as server:
        made, _ = carried_out(tmp_path, {"llm": "model", "alpaca_eval": section}, {"model": served(server.url)})
    found = metrics_of(made, "alpaca_eval.served")
    wins = sum(len(row["output_2"].strip()) > len(row["output_1"]) for row in rows)
    assert found["results"]["win rate"]["value"] == pytest.approx(100 * wins / 40)
    assert found["baseline"] == "text_davinci_003" and found["mean_characters"] > found["baseline_mean_characters"]
    written = json.loads((made["alpaca_eval.served"] / "files" / "outputs.json").read_text())
    assert [row["instruction"] for row in written] == [row["instruction"] for row in rows]
    assert {row["generator"] for row in written} == {"served"}
