from importlib.resources import files

import pytest
from messages import assistant, system, user

from deita_train.data.rendering import IGNORED, load_tokenizer, render, render_pair
from deita_train.data.row_refusal import RowRefused
from deita_train.errors import UserError
from deita_train.training.miniature import train_tokenizer

TEMPLATE = files("deita_train.data").joinpath("templates/vicuna_v1.1.jinja").read_text(encoding="utf-8")
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
AWKWARD_ANSWERS = ["Hello", ":)", " leading space", "\n", "6", "  two", "é", "a: b", "</s", "trailing "]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [f"{SYSTEM} USER: Hello there, how are you? ASSISTANT: Fine, thank you.", "hello :) hello"] * 3
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts, 400, TEMPLATE, folder)
    return load_tokenizer(str(folder))


CASES = [
    ("single turn", [user("Hi"), assistant("Hello")], f"<s>{SYSTEM} USER: Hi ASSISTANT: Hello</s>"),
    (
        "two turns",
        [user("Hi"), assistant("Hello"), user("1+1?"), assistant("2")],
        f"<s>{SYSTEM} USER: Hi ASSISTANT: Hello</s>USER: 1+1? ASSISTANT: 2</s>",
    ),
    ("own system", [system("Be brief."), user("Hi"), assistant("Yo")], "<s>Be brief. USER: Hi ASSISTANT: Yo</s>"),
    (
        "leading assistant",
        [assistant("Welcome"), user("Hi"), assistant("Yo")],
        f"<s>{SYSTEM} ASSISTANT: Welcome</s>USER: Hi ASSISTANT: Yo</s>",
    ),
    (
        "system, then assistant",
        [system("S"), assistant("Welcome"), user("Hi")],
        "<s>S ASSISTANT: Welcome</s>USER: Hi",
    ),
    (
        "trailing user",
        [user("Hi"), assistant("Yo"), user("Bye")],
        f"<s>{SYSTEM} USER: Hi ASSISTANT: Yo</s>USER: Bye",
    ),
    (
        "texts as they are",
        [user("\n{{ x }} {% if %} "), assistant("  <b>&amp;'\"\n\n")],
        f"<s>{SYSTEM} USER: \n{{{{ x }}}} {{% if %}}  ASSISTANT:   <b>&amp;'\"\n\n</s>",
    ),
]


@pytest.mark.parametrize(("messages", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_rendered_text_and_labels(tokenizer, messages, text):
    assert tokenizer.apply_chat_template(messages, tokenize=False) == text
    rendered = render(tokenizer, messages, None)
    assert tokenizer.decode(rendered.input_ids, clean_up_tokenization_spaces=False) == text
    assert rendered.input_ids.count(tokenizer.bos_token_id) == 1
    assert rendered.input_ids[0] == tokenizer.bos_token_id
    assert not rendered.truncated
    assert len(rendered.labels) == len(rendered.input_ids)
    assert all(label in (IGNORED, token) for label, token in zip(rendered.labels, rendered.input_ids, strict=True))
    spans = [" " + message["content"] + "</s>" for message in messages if message["role"] == "assistant"]
    assert trained(rendered) == [token for span in spans for token in plain_ids(tokenizer, span)]


def trained(rendered):
    return [label for label in rendered.labels if label != IGNORED]


def plain_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_generation_prompt_ends_after_the_colon(tokenizer):
    messages = [user("Hi"), assistant("Yo"), user("Bye")]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == f"<s>{SYSTEM} USER: Hi ASSISTANT: Yo</s>USER: Bye ASSISTANT:"


@pytest.mark.parametrize("answer", AWKWARD_ANSWERS)
def test_the_generation_prompt_is_a_token_prefix(tokenizer, answer):
    check_generation_prefix(tokenizer, [user("Hi"), assistant(answer)])
    check_generation_prefix(tokenizer, [user("Hi"), assistant(answer), user("And?"), assistant(answer)])


def check_generation_prefix(tokenizer, messages):
    """The prompt's tokens begin the whole, and exactly the last answer's tokens, all trained, follow."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]
    whole = render(tokenizer, messages, None)
    assert whole.input_ids[: len(prompt)] == prompt
    assert whole.labels[len(prompt) :] == whole.input_ids[len(prompt) :]
    assert whole.labels[len(prompt) - 1] == IGNORED
    return prompt


def test_truncation_cuts_the_right(tokenizer):
    messages = [user("Hi"), assistant("Hello there"), user("Again"), assistant("Fine")]
    whole = render(tokenizer, messages, None)
    length = len(whole.input_ids)
    for limit in (1, length - 1, length, length + 1):
        cut = render(tokenizer, messages, limit)
        assert (cut.input_ids, cut.labels) == (whole.input_ids[:limit], whole.labels[:limit])
        assert cut.truncated == (limit < length)
    assert trained(render(tokenizer, messages, 10)) == []


def test_the_runs_template_replaces_the_tokenizers_own(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).chat_template == TEMPLATE
    assert load_tokenizer(str(tmp_path), "{{ messages[0]['content'] }}").chat_template == "{{ messages[0]['content'] }}"


def test_a_template_that_writes_the_beginning_twice_is_refused(tmp_path):
    twice = TEMPLATE.replace("(bos_token or '') +", "bos_token + bos_token +")
    tokenizer = train_tokenizer(["Hi"], 300, twice, tmp_path)
    with pytest.raises(UserError, match="starts with <s> twice"):
        render(tokenizer, [user("Hi"), assistant("Yo")], None)


PAIR_CASES = [
    ("one turn", [user("Hi")], "Hello", ":)", f"<s>{SYSTEM} USER: Hi ASSISTANT:"),
    (
        "an earlier answer is prompt",
        [system("S"), user("Hi"), assistant("Yo"), user("1+1?")],
        "2",
        " 3\n",
        "<s>S USER: Hi ASSISTANT: Yo</s>USER: 1+1? ASSISTANT:",
    ),
]


@pytest.mark.parametrize(("prompt", "chosen", "rejected", "text"), [c[1:] for c in PAIR_CASES])
def test_a_pairs_ids_are_the_prompt_and_what_follows_it(tokenizer, prompt, chosen, rejected, text):
    pair = render_pair(tokenizer, prompt, chosen, rejected, None)
    assert pair.prompt_ids == plain_ids(tokenizer, text)
    assert pair.chosen_ids == plain_ids(tokenizer, f" {chosen}</s>")
    assert pair.rejected_ids == plain_ids(tokenizer, f" {rejected}</s>")
    assert pair.differs and not pair.truncated


def test_each_sequence_of_a_pair_is_cut_on_the_right(tokenizer):
    whole = render_pair(tokenizer, [user("Hi")], "Hello there", "Hello you", None)
    start, answers = len(whole.prompt_ids), (whole.chosen_ids, whole.rejected_ids)
    shorter, longer = sorted(map(len, answers))
    for limit in (start + 1, start + shorter, start + longer - 1, start + longer):
        cut = render_pair(tokenizer, [user("Hi")], "Hello there", "Hello you", limit)
        assert cut.prompt_ids == whole.prompt_ids
        assert (cut.chosen_ids, cut.rejected_ids) == tuple(ids[: limit - start] for ids in answers)
        assert cut.truncated == (limit < start + longer)
        assert cut.differs == (cut.chosen_ids != cut.rejected_ids)
    for limit in (start - 2, start):
        cut = render_pair(tokenizer, [user("Hi")], "Hello there", "Hello you", limit)
        assert (cut.prompt_ids, cut.chosen_ids, cut.rejected_ids) == (whole.prompt_ids[:limit], [], [])
        assert cut.truncated and not cut.differs


def test_a_template_whose_prompt_is_no_prefix_is_refused(tmp_path):
    other = TEMPLATE.replace("{{- ' ASSISTANT:' -}}", "{{- ' Assistant says:' -}}")
    tokenizer = train_tokenizer(["Hi"], 300, other, tmp_path)
    with pytest.raises(
        RowRefused, match=r"prompt_not_prefix: the tokens of the prompt .* do not begin those of prompt"
    ):
        render_pair(tokenizer, [user("Hi")], "Yo", "No", None)


@pytest.fixture(scope="module")
def mistral(shared):
    return load_tokenizer(str(shared / "tokenizers" / "mistral-7b-v0.1"), TEMPLATE)


@pytest.mark.parametrize("answer", AWKWARD_ANSWERS)
def test_mistral_generation_prompt_is_a_token_prefix(mistral, answer):
    check_generation_prefix(mistral, [user("Hi"), assistant(answer)])
