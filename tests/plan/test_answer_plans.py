"""Which stages `evaluate.answers` adds, what is in their keys, and what validating and inspecting say of them."""

import json

import pytest
from tiny_recipe import dpo_recipe, graph, no_gpus, plan, recipe  # noqa: F401

from deita_train.commands.inspection import inspect_row
from deita_train.commands.validation import validate_data
from deita_train.errors import UserError

pytestmark = pytest.mark.usefixtures("no_gpus")


def answered(data, **answers):
    data["evaluate"]["answers"] = answers
    return data


def generated(nodes):
    return {label: node for label, node in nodes.items() if node.kind == "generate"}


def test_every_model_answers_the_same_questions_by_the_runs_template(tmp_path):
    nodes = graph(tmp_path, answered(dpo_recipe()))
    found = generated(nodes)
    assert list(found) == ["generate.base", "generate.sft", "generate.dpo"]
    made_by = {"generate.base": "base", "generate.sft": "sft", "generate.dpo": "dpo"}
    for label, node in found.items():
        assert node.parents == {"questions": nodes["questions"], "model": nodes[made_by[label]]}
        assert node.identity["chat_template"] == nodes["sft"].identity["chat_template"]
        assert (node.identity["max_new_tokens"], node.identity["temperature"]) == (256, 0.0)
    assert nodes["questions"].identity["source"]["builtin"] == "everyday"
    assert len({node.key for node in found.values()}) == 3


def test_only_the_named_models_answer(tmp_path):
    found = generated(graph(tmp_path, answered(dpo_recipe(evaluate__models=["dpo", "base"]))))
    assert list(found) == ["generate.base", "generate.dpo"]
    with pytest.raises(UserError, match=r"evaluate\.models: dpo: the recipe has no such model; it has base, sft"):
        graph(tmp_path, answered(recipe(evaluate__models=["dpo"])))


def test_a_seed_is_in_the_key_only_where_something_is_drawn(tmp_path):
    def keys(seed, **answers):
        # The base's own training follows the recipe's seed as well, so it is stated there.
        data = answered(recipe(seed=seed, base__pretrain__seed=1, base__pretrain__data__seed=1), **answers)
        node = graph(tmp_path, data)["generate.base"]
        return node.key

    assert keys(1) == keys(2)
    assert keys(1, temperature=0.7) != keys(2, temperature=0.7) != keys(1)
    assert keys(1, max_new_tokens=9) != keys(1)
    few = {"questions": {"builtin": "quickstart_questions", "rows": 4}}
    assert keys(1, **few) != keys(2, **few)


def test_a_draw_and_the_references_are_in_the_key_of_the_questions(tmp_path):
    file, references = tmp_path / "q.jsonl", tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps({"question_id": n, "turns": ["Why?"]}) + "\n" for n in range(5)))
    references.write_text(json.dumps({"question_id": 1, "choices": [{"turns": ["So."]}]}) + "\n")

    def key(**how):
        questions = {"dataset": str(file), **how}
        return graph(tmp_path, answered(recipe(), questions=questions))["questions"].key

    keys = [
        key(), key(rows=3), key(rows=3, seed=1), key(references=str(references)), key(instruction_share=[0.0, 0.5]),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys) and key() == keys[0]
    with pytest.raises(UserError, match=r"evaluate\.answers\.questions\.references: nowhere.jsonl does not exist"):
        key(references="nowhere.jsonl")


def test_an_endpoint_beside_a_training_is_refused(tmp_path):
    data = recipe(evaluate={"llm": "far", "answers": {}})
    data["llm"] = {"far": {"base_url": "http://localhost:1/v1", "model": "m"}}
    with pytest.raises(UserError, match=r"evaluate\.llm: answers in place of a model of this recipe"):
        graph(tmp_path, data)


def test_validate_tries_the_questions_with_the_template(tmp_path):
    few = {"builtin": "quickstart_questions", "rows": 6}
    lines = validate_data(plan(tmp_path, answered(recipe(), questions=few))).lines
    assert "questions: 6 rows read, 6 questions with 6 turns, 6 of them with a reference answer" in lines
    for model in ("base", "sft"):
        assert f"generate.{model}: 6 answers to 6 questions, of at most 256 tokens each" in lines
    tried = [line for line in lines if line.startswith("generate.") and "rows tried" in line]
    assert tried and all("6 of 6 rows tried with" in line and line.endswith("6 usable") for line in tried)


WRITES = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
REFUSES = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"


def test_validate_refuses_a_template_that_cannot_write_a_later_turn(tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text(REFUSES + WRITES)
    few = {"builtin": "everyday", "rows": 8}
    data = answered(recipe("evaluate", sft__chat_template=str(template), evaluate={}), questions=few)
    found = validate_data(plan(tmp_path, data))
    assert any("refused_by_template" in problem and "everyday-5" in problem for problem in found.problems)


def test_inspect_shows_what_is_asked(tmp_path):
    from pass_stages import make_model

    make_model(tmp_path / "model")
    data = {
        "name": "own", "seed": 7,
        "evaluate": {"model": str(tmp_path / "model"), "answers": {"questions": {"builtin": "everyday", "rows": 8}}},
    }  # fmt: skip
    made = plan(tmp_path, data)
    shown = inspect_row(made, None, "everyday-5")
    assert [of.title for of in shown.sequences] == ["turn 1 of 2", "turn 2 of 2"]
    text = "".join(segment.text for segment in shown.sequences[1].segments)
    assert "How long is the journey?" in text and "(the model's own answer)" in text and text.endswith("ASSISTANT:")
    assert dict(shown.facts)["stage"].startswith("generate.base: nothing is trained")
