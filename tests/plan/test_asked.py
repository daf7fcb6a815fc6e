"""What a plan says of the chat models that a benchmark asks: calls, tokens and cost, by hand."""

import json

import pytest
from tiny_recipe import no_gpus  # noqa: F401

from deita_train.commands.validation import validate_data
from deita_train.plan.asked import asked_lines
from deita_train.plan.cost.costs import plan_cost
from deita_train.plan.plan import make_plan, planned_stages

pytestmark = pytest.mark.usefixtures("no_gpus")
PRICED = {"base_url": "http://localhost:1/v1", "model": "m", "price": {"input": 10.0, "output": 30.0}}
QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["a" * 40, "b" * 80]},
    {"question_id": 2, "turns": ["c" * 400]},
]


def planned(folder, evaluate, **llm):
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in QUESTIONS))
    data = {"name": "asked", "llm": {"far": {**PRICED, "price": None}, **llm}, "evaluate": evaluate}
    (folder / "recipe.yaml").write_text(json.dumps(data))
    return make_plan(folder / "recipe.yaml", (), folder / "runs")


def lines(made):
    return list(asked_lines(planned_stages(made)))


def file(folder):
    return {"dataset": str(folder / "questions.jsonl")}


def prompts(folder):
    """FastChat's prompts, of 4,000 characters together, a quarter of which one call has."""
    names = ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn")
    rows = [
        {"name": name, "type": "single", "system_prompt": "s", "prompt_template": template,
         "output_format": "[[rating]]"}
        for name, template in zip(names, (
            "{question} {answer}", "{question} {answer} {ref_answer_1}",
            "{question_1} {answer_1} {question_2} {answer_2}",
            "{question_1} {answer_1} {question_2} {answer_2} {ref_answer_1} {ref_answer_2}",
        ), strict=True)
    ]  # fmt: skip
    path = folder / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    own = sum(len(row["system_prompt"]) + len(row["prompt_template"]) for row in rows)
    return str(path), -(-own // 4) // 4


def test_calls_tokens_and_cost_of_a_judge_and_of_a_served_model(tmp_path):
    path, own = prompts(tmp_path)
    references = tmp_path / "references.jsonl"
    references.write_text(json.dumps({"question_id": 2, "choices": [{"turns": ["d" * 200]}]}))
    questions = {**file(tmp_path), "references": str(references)}
    judged = {"questions": questions, "judge": "judge", "prompts": path, "max_new_tokens": 100, "ask_again": 2}
    made = planned(tmp_path, {"llm": "far", "judged": judged}, judge=PRICED)
    of_answering = plan_cost(made, planned_stages(made), None).stages[made.node("generate.judged.served").key]
    assert of_answering.operations is None and not of_answering.unknown  # another machine computes it
    # Turns of 40, 80 and 400 characters; the second comes after the first and its answer, the third has a reference.
    of_answers = 10 + (30 + 100) + 100
    of_judge = 3 * own + (10 + 100) + (30 + 200) + (100 + 50 + 100)
    cost = (of_judge * 10 + 3 * 2048 * 30) / 1e6
    assert lines(made) == [
        f"generate.judged: 3 calls to llm.far; about {of_answers} tokens of prompts, by their characters, and at most "
        "300 of answers; at what cost is not known without llm.far.price",
        f"judged: 3 calls to llm.judge, 9 at most; about {of_judge} tokens of prompts, by their characters, and at "
        f"most 6,144 of answers: at most about {cost:.2f}, if every verdict can be read",
    ]
    # What `validate` says, which reads the questions as the stage does, is the same.
    (told,) = [line for line in validate_data(made).lines if line.startswith("judged.served")]
    assert f"3 calls to llm.judge about 2 questions, 9 at most; about {of_judge} tokens" in told
    assert f": {cost:.2f} at most" in told


def test_pairs_and_comparisons_and_rules_and_a_draw(tmp_path):
    (tmp_path / "alpaca.json").write_text(json.dumps(
        [{"instruction": "d" * 40, "output": "e" * 20, "generator": "g", "dataset": "x"}] * 3
    ))  # fmt: skip
    compared = {"questions": {"dataset": str(tmp_path / "alpaca.json"), "rows": 2}, "judge": "judge"}
    builtin = {"questions": {"builtin": "quickstart_questions", "rows": 5}, "judge": "rules"}
    evaluate = {"llm": "far", "alpaca_eval": {**compared, "ask_again": 0}, "judged": builtin}
    made = planned(tmp_path, evaluate, judge=PRICED, rules={"builtin": "quickstart"})
    found = {line.partition(":")[0]: line for line in lines(made)}
    assert (
        "alpaca_eval: 2 calls to llm.judge; about" in found["alpaca_eval"]
        and " at most 2 of answers" in found["alpaca_eval"]
    )
    assert found["judged"] == "judged: 5 calls to llm.rules, 15 at most; rules of this package, which cost nothing"


def test_of_questions_that_are_not_read_the_published_number_is_said(tmp_path):
    (tmp_path / "other.csv").write_text("prompt\nWhy?\n")
    judged = {"questions": {"dataset": str(tmp_path / "other.csv")}, "judge": "judge"}
    made = planned(tmp_path, {"llm": "far", "mt_bench": judged, "judged": judged}, judge=PRICED)
    found = {line.partition(":")[0]: line for line in lines(made)}
    assert found["mt_bench"] == (
        "mt_bench: calls to llm.judge for each turn of each question (2 turns of 80 questions, if all of MT-Bench's "
        "are asked); `deita-train validate` reads the questions, and says how many tokens they have and what they cost"
    )
    assert "turn of each question; `deita-train validate`" in found["judged"]


def test_models_of_the_run_are_counted_together(tmp_path):
    trainer = {"learning_rate": 0.001, "num_train_epochs": 1}
    pretrain = {"data": {"builtin": "quickstart_pretraining", "rows": 50}, "global_batch_size": 8, "trainer": trainer}
    sft = {"model": "base", "data": {"builtin": "quickstart", "rows": 20}, "global_batch_size": 8, "trainer": trainer}
    data = {
        "name": "asked", "base": {"builtin": "miniature", "pretrain": pretrain}, "sft": sft, "llm": {"judge": PRICED},
        "evaluate": {"judged": {"questions": {"builtin": "everyday", "rows": 8}, "judge": "judge", "ask_again": 0}},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(data))
    (line,) = lines(make_plan(tmp_path / "recipe.yaml", (), tmp_path / "runs"))
    assert line.startswith("judged for 2 models: 18 calls to llm.judge; about ")


def test_cells_may_ask_other_questions(tmp_path):
    judged = {"questions": {"builtin": "quickstart_questions", "rows": 5}, "judge": "judge", "ask_again": 0}
    data = {
        "name": "asked", "llm": {"far": PRICED, "judge": PRICED}, "evaluate": {"llm": "far", "judged": judged},
        "sweep": {"evaluate.judged.questions.rows": [7]},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(data))
    found = lines(make_plan(tmp_path / "recipe.yaml", (), tmp_path / "runs"))
    assert found[0].startswith("generate.judged for 2 models: 12 calls to llm.far")
    assert found[1].startswith("judged for 2 models: 12 calls to llm.judge")
