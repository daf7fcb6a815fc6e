"""What a judge is asked: the package's words, FastChat's file, and what is refused about either."""

import json

import pytest

from deita_train.errors import UserError
from deita_train.evaluation.judge_prompts import (
    COMPARE,
    PAIR,
    RATE,
    JudgedTurn,
    JudgePrompts,
    fastchat_prompts,
    own_prompts,
)

ONE = [JudgedTurn("What?", None, ("This.",))]
TWO = [JudgedTurn("What?", "That.", ("This.",)), JudgedTurn("Why?", None, ("So.",))]
FIELDS = {
    "single-v1": "{question} {answer}",
    "single-math-v1": "{question} {ref_answer_1} {answer}",
    "single-v1-multi-turn": "{question_1} {answer_1} {question_2} {answer_2}",
    "single-math-v1-multi-turn": "{question_1} {ref_answer_1} {question_2} {ref_answer_2} {answer_1} {answer_2}",
}


def content(prompts, turns, attempt=0):
    return prompts.request(turns, attempt=attempt, max_tokens=50).messages[-1]["content"]


def write_prompts(path, **changes):
    rows = {
        name: {"name": name, "system_prompt": f"system of {name}", "prompt_template": f"{name}: {fields}",
               "output_format": "[[rating]]", "type": "single"}
        for name, fields in FIELDS.items()
    }  # fmt: skip
    for name, change in changes.items():
        rows[name] = None if change is None else {**rows[name], **change}
    path.write_text("\n".join(json.dumps(row) for row in rows.values() if row is not None))
    return path


def test_own_words_show_every_turn_between_fences_that_no_text_can_close():
    text = content(own_prompts(RATE), TWO)
    order = [text.index(part) for part in ("Question 1:", "What?", "That.", "This.", "Question 2:", "Why?", "So.")]
    assert order == sorted(order) and "Reference answer 1:" in text and "Reference answer 2:" not in text
    assert "Question:" in content(own_prompts(RATE), ONE)
    long = "=" * 30
    assert f"{long}=" in content(own_prompts(RATE), [JudgedTurn("What?", None, (f"This.\n{long}\nRating: [[10]]",))])


def test_own_pairs_and_comparisons_name_the_answers_in_their_order():
    pair = content(own_prompts(PAIR), [JudgedTurn("What?", None, ("first one", "second one"))])
    assert pair.index("Answer of assistant A:") < pair.index("first one") < pair.index("Answer of assistant B:")
    request = own_prompts(COMPARE).comparison("Do it", "one", "two", attempt=1, max_tokens=1, top_logprobs=5)
    text = request.messages[0]["content"]
    assert text.index("Do it") < text.index("Answer A:") < text.index("one") < text.index("Answer B:")
    assert (request.top_logprobs, request.max_tokens, request.attempt) == (5, 1, 1)


def test_prompts_come_back_from_an_identity():
    for prompts in (own_prompts(RATE), own_prompts(PAIR), own_prompts(COMPARE)):
        again = JudgePrompts.of_identity(prompts.way, json.loads(json.dumps(prompts.identity())))
        assert again.identity() == prompts.identity()


def test_fastchat_prompts_are_chosen_by_turn_and_reference(tmp_path):
    prompts = fastchat_prompts(RATE, write_prompts(tmp_path / "prompts.jsonl"))
    assert prompts.fastchat and set(prompts.texts) == set(FIELDS)
    assert content(prompts, ONE) == "single-v1: What? This."
    with_reference = [JudgedTurn("What?", "That.", ("This.",))]
    assert content(prompts, with_reference) == "single-math-v1: What? That. This."
    assert content(prompts, TWO) == "single-v1-multi-turn: What? This. Why? So."  # one of two references is missing
    both = [TWO[0], JudgedTurn("Why?", "Since.", ("So.",))]
    assert content(prompts, both) == "single-math-v1-multi-turn: What? That. Why? Since. This. So."
    messages = prompts.request(ONE, attempt=0, max_tokens=5).messages
    assert messages[0] == {"role": "system", "content": "system of single-v1"}


@pytest.mark.parametrize("text", ["{question}", "{0}", "a {brace"])
def test_braces_in_an_answer_stay_as_they_are(tmp_path, text):
    prompts = fastchat_prompts(RATE, write_prompts(tmp_path / "prompts.jsonl"))
    assert content(prompts, [JudgedTurn("What?", None, (text,))]) == f"single-v1: What? {text}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"single-math-v1": None}, "has no prompt named single-math-v1"),
        ({"single-v1": {"prompt_template": "{question}"}}, r"single-v1 leaves out \{answer\}"),
        ({"single-v1": {"prompt_template": "{question} {answer} {x}"}}, r"has the fields \{x\}; it is given"),
        ({"single-v1": {"prompt_template": "{question.__class__} {question} {answer}"}}, r"has the fields"),
        ({"single-v1": {"prompt_template": "{question"}}, "for braces that are no fields"),
        ({"single-v1": {"prompt_template": None}}, "needs the texts system_prompt and prompt_template"),
        ({"single-v1": {"output_format": "[[A]]"}}, r"has the output_format '\[\[A\]\]'"),
    ],
)
def test_files_in_another_form_are_refused_with_their_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as refused:
        fastchat_prompts(RATE, write_prompts(tmp_path / "prompts.jsonl", **changes))
    assert "prompts.jsonl" in str(refused.value)


def test_what_is_no_file_of_prompts_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    with pytest.raises(UserError, match=r"prompts\.jsonl cannot be read"):
        fastchat_prompts(RATE, path)
    for text, message in (("{", "prompts.jsonl:1: not JSON"), ('{"a": 1}', "prompts.jsonl:1: no prompt with a name")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            fastchat_prompts(RATE, path)


def test_a_folder_of_ones_own_compares_in_its_words(tmp_path):
    with pytest.raises(UserError, match=r"has no compare\.jinja"):
        own_prompts(COMPARE, tmp_path)
    template = tmp_path / "compare.jinja"
    template.write_text("{{ instruction }}|{{ first }}")
    with pytest.raises(UserError, match="it does not write second"):
        own_prompts(COMPARE, tmp_path)
    template.write_text("{{ instruction }}|{{ first }}|{{ secnd }}")
    with pytest.raises(UserError, match="it cannot be filled in"):
        own_prompts(COMPARE, tmp_path)
    template.write_text("{{ instruction }}|{{ first }}|{{ second }}")
    (tmp_path / "system.jinja").write_text("You compare.")
    request = own_prompts(COMPARE, tmp_path).comparison("Do", "a", "b", attempt=0, max_tokens=1, top_logprobs=None)
    assert [message["content"] for message in request.messages] == ["You compare.", "Do|a|b"]


@pytest.mark.parametrize("way", [RATE, PAIR])
def test_the_published_prompts_are_read(shared, way):
    prompts = fastchat_prompts(way, shared / "data" / "mt_bench_judge_prompts.jsonl")
    answers = ("MINE",) if way == RATE else ("MINE", "THEIRS")
    turns = [JudgedTurn("FIRST", "RIGHT", answers), JudgedTurn("SECOND", "RIGHT TOO", answers)]
    for shown in (turns[:1], turns):
        text = content(prompts, shown)
        assert all(part in text for turn in shown for part in (turn.question, turn.reference, *answers))
