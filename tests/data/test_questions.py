"""Questions in every published form, against what each says by hand."""

import json
import os
from pathlib import Path

import pytest

from deita_train.data.builtin import builtin_questions
from deita_train.data.drawing import Draw
from deita_train.data.everyday import EVERYDAY_QUESTIONS
from deita_train.data.intake import RowSource
from deita_train.data.questions import FEATURES, build_questions
from deita_train.data.quickstart import make_heldout, make_pool, make_preferences, make_pretraining_rows, make_questions
from deita_train.data.sources import iter_rows
from deita_train.errors import UserError
from deita_train.recipe import evaluation_sections

SHARED = os.environ.get("DEITA_SHARED")


def written(folder, rows, name="set.jsonl"):
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(folder, rows, references=None, **how):
    source = RowSource.from_dataset(str(written(folder, rows)), **how)
    given = None if references is None else iter_rows(str(written(folder, references, "references.jsonl")))
    table, report = build_questions(source, given)
    assert table.features == FEATURES and len(set(table["id"])) == len(table) == report.rows_out
    return list(table), report


def question(name, *turns, **fields):
    return {**dict.fromkeys(FEATURES), "id": name, "turns": list(turns), **fields}


def test_mt_benchs_file(tmp_path):
    rows = [
        {"question_id": 81, "category": "writing", "turns": ["One?", "Two?"]},
        {"question_id": 95, "category": "roleplay", "turns": ["One?", "Two?"], "reference": ["A", ""]},
        {"question_id": 101, "category": "math", "turns": ["One?", "Two?"], "reference": ["own", "own"]},
    ]
    references = [
        {"question_id": 101, "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["R1", "R2"]}]},
        {"question_id": 7, "choices": [{"turns": ["elsewhere"]}]},
    ]
    found, report = read(tmp_path, rows, references)
    assert found == [
        question("81", "One?", "Two?", category="writing"),
        question("95", "One?", "Two?", category="roleplay", references=["A", None]),
        question("101", "One?", "Two?", category="math", references=["R1", "R2"]),
    ]
    assert (report.format, report.turns, report.with_reference, report.references_unused) == ("turns", 6, 2, 1)
    assert report.categories == {"writing": 1, "roleplay": 1, "math": 1} and report.columns_left_out == []


def test_mt_bench_as_the_hub_has_it(tmp_path):
    rows = [
        {"prompt": ["One?", "Two?"], "reference": [], "category": "stem", "prompt_id": 5},
        {"prompt": ["One?", "Two?"], "reference": ["A", "B"], "category": "math", "prompt_id": 6},
    ]
    found, report = read(tmp_path, rows)
    assert found == [
        question("5", "One?", "Two?", category="stem"),
        question("6", "One?", "Two?", category="math", references=["A", "B"]),
    ]
    assert report.format == "prompt_list" and report.columns_left_out == []


def test_alpaca_evals_file(tmp_path):
    rows = [
        {"instruction": "Do.", "output": "Done.", "generator": "davinci", "dataset": "koala", "datasplit": "eval"},
        {"instruction": "Do.", "output": "", "generator": "davinci", "dataset": "koala", "datasplit": "eval"},
    ]
    found, report = read(tmp_path, rows)
    shared = {"baseline_name": "davinci", "subset": "koala"}
    assert found == [
        question("set:0", "Do.", baseline="Done.", **shared),
        question("set:1", "Do.", baseline="", **shared),
    ]
    assert report.columns_left_out == ["datasplit"]


def test_plain_prompts(tmp_path):
    one = {"id": "x", "system_prompt": "Be brief.", "category": "c", "reference": "Yes."}
    expected = question("x", "Who?\n\nHere.", system="Be brief.", category="c", references=["Yes."])
    for row in (
        {"instruction": "Who?", "input": "Here.", "output": "It is."},
        {"question": "Who?", "context": "Here."},
        {"query": "Who?", "context": "Here.", "response": "It is."},
        {"prompt": "Who?\n\nHere."},
    ):
        found, report = read(tmp_path, [{**row, **one}])
        assert found == [expected]
        assert report.columns_left_out == sorted(row.keys() & {"output", "response"})


def test_conversations_are_asked_again_turn_by_turn(tmp_path):
    said = [("system", "S"), ("user", "One?"), ("assistant", "A"), ("user", "Two?")]
    messages = [{"role": role, "content": text} for role, text in said]
    shares = [{"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text} for role, text in said]
    for row in ({"messages": messages}, {"conversations": shares}, {"prompt": messages}):
        found, _ = read(tmp_path, [{"id": "c", **row}])
        assert found == [question("c", "One?", "Two?", system="S")]


UNUSABLE = [
    ({"turns": "One?"}, "missing_conversation", "column 'turns' is str, not a list"),
    ({"turns": []}, "missing_conversation", "column 'turns' is an empty list"),
    ({"turns": None}, "missing_conversation", "column 'turns' is null"),
    ({"turns": ["One?", 2]}, "not_text", "message 2 holds int"),
    ({"turns": ["  "]}, "empty_message", "message 1 (user)"),
    ({"turns": ["One?"], "reference": ["A", "B"]}, "bad_reference", "2 references for 1 turns"),
    ({"turns": ["One?"], "reference": 3}, "bad_reference", "neither a text nor a list"),
    ({"turns": ["One?"], "category": 3}, "not_text", "column 'category'"),
    ({"turns": ["One?"], "tools": [{"name": "f"}]}, "has_tools", "schemas of tools"),
    ({"messages": [{"role": "assistant", "content": "A"}]}, "no_user_turn", "the roles are assistant"),
    (
        {"messages": [{"role": "user", "content": "A"}, {"role": "user", "content": "B"}]},
        "roles_do_not_alternate",
        "messages 1 and 2 are both user",
    ),
    (
        {"messages": [{"role": "user", "content": "A"}, {"role": "system", "content": "B"}]},
        "system_message_later",
        "after the first turn",
    ),
    ({"instruction": "Do.", "output": None, "generator": "g"}, "missing_conversation", "column 'output' is null"),
]


@pytest.mark.parametrize(("row", "reason", "detail"), UNUSABLE)
def test_an_unusable_row_is_dropped_with_its_line_and_reason(tmp_path, row, reason, detail):
    good = {"turns": ["Who?"]} if "turns" in row else {"messages": [{"role": "user", "content": "Who?"}]}
    good = {"instruction": "Who?", "output": "", "generator": "g"} if "instruction" in row else good
    found, report = read(tmp_path, [good, row])
    assert len(found) == 1 and report.drops == {reason: 1} and report.rows_in == 2
    (example,) = report.examples[reason]
    assert example.startswith(f"{tmp_path / 'set.jsonl'}:2: ") and detail in example


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"set.jsonl:1: the columns 'text' hold no questions"):
        read(tmp_path, [{"text": "x"}])
    with pytest.raises(UserError, match=r"none of the 1 rows of set can be used"):
        read(tmp_path, [{"turns": []}])
    with pytest.raises(UserError, match=r"id '7' is used twice in source 'set': at .*set.jsonl:1 and .*set.jsonl:2"):
        read(tmp_path, [{"question_id": 7, "turns": ["a"]}, {"question_id": 7, "turns": ["b"]}])


QUESTION = {"question_id": 7, "turns": ["a"]}
BAD_REFERENCES = [
    ([{"choices": []}], r"references.jsonl:1: no question_id"),
    ([{"question_id": 7, "choices": []}], r"references.jsonl:1: no choices with turns"),
    ([{"question_id": 7, "choices": [{"turns": ["a", "b"]}]}], r"references.jsonl:1: 2 references for 1 turns"),
    ([{"question_id": 7, "choices": [{"turns": ["a"]}]}] * 2, r"'7' is used twice .*:1 and .*:2"),
    ([{"question_id": 8, "choices": [{"turns": ["a"]}]}], r"none of the 1 references belongs .* '8' .* '7'"),
]


@pytest.mark.parametrize(("references", "message"), BAD_REFERENCES)
def test_a_malformed_file_of_references_is_an_error(tmp_path, references, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, [QUESTION], references)


def test_some_questions_are_drawn_by_seed_and_id(tmp_path):
    rows = [{"id": f"q{number}", "prompt": f"{number}?"} for number in range(9)]
    found, report = read(tmp_path, rows, draw=Draw(3, rows=4))
    assert len(found) == 4 and report.drops == {"not_sampled": 5} and report.rows_in == 9
    again, _ = read(tmp_path, rows[::-1], draw=Draw(3, rows=4))
    assert {row["id"] for row in again} == {row["id"] for row in found}
    with pytest.raises(UserError, match="has 9 usable rows"):
        read(tmp_path, rows, draw=Draw(3, rows=10))


def test_a_share_of_the_questions(tmp_path):
    rows = [{"id": f"q{number}", "prompt": f"{number}?"} for number in range(30)]
    parts = [read(tmp_path, rows, instruction_share=share) for share in ((0.0, 0.5), (0.5, 1.0))]
    ids = [{row["id"] for row in found} for found, _ in parts]
    assert ids[0] | ids[1] == {row["id"] for row in rows} and not ids[0] & ids[1] and all(ids)
    assert parts[0][1].rows_outside_share == len(ids[1])


def test_the_everyday_questions():
    table, report = build_questions(RowSource("everyday", builtin_questions("everyday", 8, 1)))
    assert (
        len(table) == EVERYDAY_QUESTIONS == evaluation_sections.EVERYDAY_QUESTIONS == 8 and report.with_reference == 0
    )
    assert any(len(turns) == 2 for turns in table["turns"])


def test_the_quickstarts_questions_have_their_right_answers_and_are_not_trained_on():
    table, report = build_questions(RowSource("q", builtin_questions("quickstart_questions", 40, 3)))
    assert report.with_reference == len(table) == 40 and all(len(turns) == 1 for turns in table["turns"])
    assert make_questions(40, 3) == make_questions(50, 3)[:40] != make_questions(40, 4)
    asked = {turns[0] for turns in table["turns"]}
    trained = [row["messages"][0]["content"] for row in (*make_pool(300, 3), *make_pretraining_rows(300, 3))]
    trained += [row["prompt"][-1]["content"] for row in make_preferences(300, 3)]
    assert not asked & set(trained)
    # A perfect answer of the held-out set ends with the answer, too: the reference is the task's own.
    heldout = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in make_heldout(2000, 3)}
    both = [row for row in table if row["turns"][0] in heldout]
    assert all(f"Final answer: {row['references'][0]}." in heldout[row["turns"][0]] for row in both)


@pytest.mark.skipif(SHARED is None, reason="DEITA_SHARED is unset")
def test_the_published_files():
    data = Path(str(SHARED)) / "data"
    source = RowSource.from_dataset(str(data / "mt_bench_questions.jsonl"))
    table, report = build_questions(source, iter_rows(str(data / "mt_bench_reference_answers.jsonl")))
    assert len(table) == 80 and report.turns == 160 and set(report.categories.values()) == {10}
    assert report.drops == {} and report.references_unused == 0
    for row in table:
        if row["category"] in ("math", "reasoning", "coding"):
            assert len(row["references"]) == 2 and all(row["references"])
    source = RowSource.from_dataset(str(data / "alpaca_eval" / "deita-7b-v1.0.outputs.json.gz"))
    table, report = build_questions(source)
    assert len(table) == 805 and report.drops == {} and set(table["baseline_name"]) == {"deita-7b-v1.0"}
