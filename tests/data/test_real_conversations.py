"""Real conversations with Mistral's own tokenizer: ids and labels against those of the formats' pieces."""

import json
from importlib.resources import files

import pytest
from messages import real_rows

from deita_train.data.control_tokens import control_tokens
from deita_train.data.rendering import IGNORED, load_tokenizer, render, render_pair

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
BOS, EOS = ("beginning",), ("end",)  # no texts, which a message could have as well
NAMES = ["vicuna_v1.1", "llama2", "mistral_instruct", "zephyr"]
LITERAL_ROW = 139  # of real_messages_multiturn.json: its answer has </s> twice


@pytest.fixture(scope="module")
def with_template(shared):
    folder = files("deita_train.data").joinpath("templates")
    path = str(shared / "tokenizers" / "mistral-7b-v0.1")
    return {name: load_tokenizer(path, folder.joinpath(f"{name}.jinja").read_text(encoding="utf-8")) for name in NAMES}


def pieces_of(name, messages):
    """The format in pieces: control tokens stand alone, and a mark tells what the assistant writes."""
    pieces = {"vicuna_v1.1": [(BOS, False), (SYSTEM, False)], "llama2": []}.get(name, [(BOS, False)])
    for place, message in enumerate(messages):
        pieces = [*pieces, *_message(name, message["role"] == "assistant", message["content"], place)]
    return pieces


def _message(name, answers, text, place):
    if name == "vicuna_v1.1":
        opening = (" " if place else "") + "ASSISTANT:"
        return [(opening, False), (f" {text}", True), (EOS, True)] if answers else [(f"USER: {text}", False)]
    if name == "llama2":
        asked = [(BOS, False), (f"[INST] {text.strip()} [/INST]", False)]
        return [(f" {text.strip()} ", True), (EOS, True)] if answers else asked
    if name == "mistral_instruct":
        return [(f" {text}", True), (EOS, True)] if answers else [(f"[INST] {text} [/INST]", False)]
    if answers:
        return [("<|assistant|>\n", False), (text.lstrip(), True), (EOS, True), ("\n", False)]
    return [(f"<|user|>\n{text}", False), (EOS, False), ("\n", False)]


def ids_and_labels(tokenizer, pieces):
    """A control token is its id; the text between two of them is encoded by itself, with no control token in it. Where
    a piece begins and ends is counted in tokens of the text before it, which must be a token prefix."""
    ids, labels, run = [], [], []
    for text, trained in [*pieces, (EOS, False)]:
        if text not in (BOS, EOS):
            run.append((text, trained))
            continue
        run_ids, run_labels = _run(tokenizer, run)
        token = {BOS: tokenizer.bos_token_id, EOS: tokenizer.eos_token_id}[text]
        ids += [*run_ids, token]
        labels += [*run_labels, token if trained else IGNORED]
        run = []
    return ids[:-1], labels[:-1]


def _run(tokenizer, run):
    whole = plain_ids(tokenizer, "".join(text for text, _ in run))
    labels = [IGNORED] * len(whole)
    for place in (place for place, (_, trained) in enumerate(run) if trained):
        before = plain_ids(tokenizer, "".join(text for text, _ in run[:place]))
        upto = plain_ids(tokenizer, "".join(text for text, _ in run[: place + 1]))
        assert whole[: len(before)] == before and whole[: len(upto)] == upto
        labels[len(before) : len(upto)] = whole[len(before) : len(upto)]
    return whole, labels


def plain_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] if text else []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("file", "num_rows"), [("real_messages_multiturn.json", 300), ("real_sharegpt_multiturn_identity.json", 500)]
)
def test_exactly_the_answers_and_their_ends_are_trained(shared, with_template, file, num_rows, name):
    tokenizer, rows = with_template[name], real_rows(shared, file)
    assert len(rows) == num_rows
    literal = []
    for number, messages in enumerate(rows):
        rendered = render(tokenizer, messages, None)
        assert (rendered.input_ids, rendered.labels) == ids_and_labels(tokenizer, pieces_of(name, messages)), number
        answers = sum(message["role"] == "assistant" for message in messages)
        asked = len(messages) - answers
        assert rendered.labels.count(tokenizer.eos_token_id) == answers
        assert rendered.input_ids.count(tokenizer.bos_token_id) == (asked if name == "llama2" else 1)
        check_prompt(tokenizer, messages, rendered, after_end=2 if name == "zephyr" else 0)
        if any(control_tokens(tokenizer).spans(message["content"]) for message in messages):
            literal.append(number)
        elif name == "vicuna_v1.1" or number % 10 == 0:
            check_public(tokenizer, messages, rendered)
    assert literal == ([LITERAL_ROW] if num_rows == 300 else [])


def check_prompt(tokenizer, messages, rendered, after_end):
    """The prompt, as anyone asks for it, is a token prefix, and all after it is trained but the line end of Zephyr."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert rendered.input_ids[: len(prompt)] == prompt
    assert rendered.labels[len(prompt) - 1] == IGNORED
    end = len(rendered.labels) - after_end
    assert len(prompt) < end and rendered.labels[len(prompt) : end] == rendered.input_ids[len(prompt) : end]


def check_public(tokenizer, messages, rendered):
    """Without a literal control token the ids are those of anyone's `apply_chat_template`."""
    assert rendered.input_ids == tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_their_conversations(shared, with_template, name):
    lines = (shared / "data" / "real_preferences.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 510
    tokenizer = with_template[name]
    for row in map(json.loads, lines[:: 1 if name == "vicuna_v1.1" else 10]):
        prompt, chosen, rejected = row["chosen"][:-1], row["chosen"][-1]["content"], row["rejected"][-1]["content"]
        pair = render_pair(tokenizer, prompt, chosen, rejected, None)
        for ids, answer in ((pair.chosen_ids, row["chosen"]), (pair.rejected_ids, row["rejected"])):
            whole, labels = ids_and_labels(tokenizer, pieces_of(name, answer))
            assert pair.prompt_ids + ids == whole
            end = len(whole) - (2 if name == "zephyr" else 0)
            assert labels[len(pair.prompt_ids) : end] == whole[len(pair.prompt_ids) : end]


LITERALS = [
    "</s>",
    "<s>",
    "a</s>b",
    " </s> ",
    "<s><s>",
    "</s></s>x",
    "</s</s>>",
    "<unk>",
    "</",
    "s>",
    "<s",
    "\U000f0000",
    "é\n",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", LITERALS)
def test_a_control_token_that_a_message_spells_is_text(with_template, name, text):
    tokenizer = with_template[name]
    for asked, answered in ((text, "Yes"), ("Say it", text), (text, text), (f"{text}\U000f0001", f"Is{text}")):
        turns = [("user", asked), ("assistant", answered), ("user", asked), ("assistant", answered)]
        messages = [{"role": role, "content": content} for role, content in turns]
        rendered = render(tokenizer, messages, None)
        ids, labels = ids_and_labels(tokenizer, pieces_of(name, messages))
        assert (rendered.input_ids, rendered.labels) == (ids, labels)
        pair = render_pair(tokenizer, messages[:-1], answered, "Yes", None)
        assert pair.prompt_ids + pair.chosen_ids == ids
        ends = rendered.input_ids.count(tokenizer.eos_token_id)
        assert ends == (4 if name == "zephyr" else 2)


def test_row_139_keeps_its_words(shared, with_template):
    tokenizer = with_template["vicuna_v1.1"]
    messages = real_rows(shared, "real_messages_multiturn.json")[LITERAL_ROW]
    rendered = render(tokenizer, messages, None)
    assert messages[-1]["content"].count("</s>") == 2
    assert rendered.labels.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(rendered.input_ids, clean_up_tokenization_spaces=False).count("</s>") == 3
    public = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert public.count(tokenizer.eos_token_id) == 3
