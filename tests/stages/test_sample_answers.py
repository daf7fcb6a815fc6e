"""Answers of the evaluated model: chosen prompts, the likeliest tokens by hand, and where they are read afterwards."""

from dataclasses import replace

import pytest
import torch
from pass_stages import TEMPLATE, carry_out, conversations, make_model, pass_context
from transformers import AutoModelForCausalLM, AutoTokenizer

from deita_train.stages.inference import evaluate

TOKENS = 12
ROWS = [
    {"id": "only-answers", "messages": [{"role": "assistant", "content": "Hello."}]},
    *conversations(4),
    # Begins as row-0 does.
    {"id": "again", "messages": conversations(1)[0]["messages"]},
    {"id": "guided", "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."}, {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "Nothing."},
    ]},
]  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    make_model(folder / "model")
    return folder


def answered(model_folder, tmp_path, samples, rows=ROWS, **limits):
    (tmp_path / "model").symlink_to(model_folder / "model")
    context = pass_context("evaluate", tmp_path, rows, max_length=1024)
    identity = {**context.identity, "samples": samples, "sample_tokens": TOKENS, **limits}
    _, result = carry_out(evaluate, replace(context, identity=identity))
    return result.metrics["answers"]


def by_hand(folder, messages):
    """The prompt by transformers' own template, and the likeliest tokens one at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer.chat_template = TEMPLATE
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    written = []
    while len(written) < TOKENS and (not written or written[-1] != tokenizer.eos_token_id):
        with torch.no_grad():
            logits = model(torch.cat([ids, torch.tensor([written], dtype=torch.long)], dim=1)).logits[0, -1]
        written.append(int(logits.argmax()))
    return written, tokenizer.decode(written, skip_special_tokens=True).strip(), tokenizer.eos_token_id


def test_the_first_different_questions_are_answered(model_folder, tmp_path):
    answers = answered(model_folder, tmp_path, 5)
    assert list(answers) == ["row-0", "row-1", "row-2", "row-3", "guided"]
    for row in ROWS:
        if row["id"] in answers:
            roles = [message["role"] for message in row["messages"]]
            asked = row["messages"][: roles.index("user") + 1]
            tokens, text, end = by_hand(model_folder, asked)
            assert answers[row["id"]] == {
                "prompt": asked[-1]["content"],
                "answer": text,
                "tokens": len(tokens),
                "is_ended": tokens[-1] == end,
            }


def test_their_number_is_the_recipes(model_folder, tmp_path):
    assert list(answered(model_folder, tmp_path, 2)) == ["row-0", "row-1"]


def test_none_are_asked_for(model_folder, tmp_path):
    assert answered(model_folder, tmp_path, 0) == {}


def test_the_log_has_them(model_folder, tmp_path, capsys):
    (answer,) = answered(model_folder, tmp_path, 1).values()
    assert f"row-0: {answer['prompt']}\n    -> {answer['answer']}\n" in capsys.readouterr().out


def test_an_answer_ends_where_the_template_ends_a_turn(model_folder, tmp_path):
    """By a template whose turns end in another token than the model's own end; each of its tokens stops an answer."""
    template = (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}U {{ message['content'] }} A "
        "{% else %}{% generation %}{{ message['content'] }}{{ pad_token }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    answers = answered(model_folder, tmp_path, 1, conversations(2), chat_template=template)
    assert set(answers) == {"row-0"}
    from deita_train.store.atomic_io import read_json

    kept = read_json(tmp_path / "work" / "prepared" / "prompts.json")
    assert kept["ends"] == [2]  # <pad>
