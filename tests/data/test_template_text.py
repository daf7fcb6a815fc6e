"""Conversations by the own templates of current model families: what is trained, and what is refused."""

import json
from datetime import datetime

import pytest
from messages import assistant, real_rows, system, user
from model_families import FAMILIES, make_tokenizer
from trl.chat_template_utils import get_training_chat_template

from deita_train.data.control_tokens import control_tokens
from deita_train.data.rendering import IGNORED, render, render_pair
from deita_train.data.row_refusal import RowRefused
from deita_train.data.template_text import rendered_text
from deita_train.data.training_templates import _trl_templates, name_of_training_form, training_form
from deita_train.errors import UserError
from deita_train.training.end_of_turn import check_answer_marks

TWO = [user("How are you?"), assistant("Fine, thank you."), user("1+1?"), assistant("2")]
AWKWARD = ["\n\nhello", " led by a space", "</s", "<s>hi</s>", "Wow!! Great !", "é\t日本", "ends  \n"]


@pytest.fixture(scope="module")
def tokenizers():
    made = {name: make_tokenizer(family) for name, family in FAMILIES.items()}
    for tokenizer in made.values():
        tokenizer.chat_template = training_form(tokenizer.chat_template)
    return made


def trained(rendered):
    return [label for label in rendered.labels if label != IGNORED]


def spelled(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_the_training_forms_are_those_that_trl_gives():
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    for name, (own, marked) in _trl_templates().items():
        if "diffusion" in name or "{% generation" in own:
            continue
        tokenizer.chat_template = own
        assert get_training_chat_template(tokenizer) == marked, name
        assert training_form(own).endswith(marked)
        assert name_of_training_form(training_form(own)) is not None
    assert len(_trl_templates()) > 20


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_with_their_end_and_nothing_else_are_trained(tokenizers, name):
    tokenizer = tokenizers[name]
    rendered = rendered_text(tokenizer, TWO)
    answers = [rendered.text[start:end].strip() for start, end in rendered.answers]
    ends = sorted(control_tokens(tokenizer).spans(" ".join(answers)))
    assert len(ends) >= 2, "each answer ends in a control token"
    for text, words in zip(_joined(answers), ("Fine, thank you.", "2"), strict=True):
        assert words in text and "How are you?" not in text and "1+1?" not in text
    check_answer_marks(tokenizer)


def _joined(answers):
    """One text for each of two answers; a template may mark an answer's end by itself."""
    second = next(place for place, text in enumerate(answers) if "2" in text)
    return ["".join(answers[:second]), "".join(answers[second:])]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("smollm2", "phi3")])
def test_ids_and_masks_are_those_of_trls_training_form(tokenizers, name):
    """The reference is transformers' own path on trl's template, which takes spelled control tokens for real ones."""
    tokenizer = tokenizers[name]
    compared = [answer for answer in AWKWARD if not control_tokens(tokenizer).spans(answer)]
    for answer in compared:
        messages = [*TWO, user("And?"), assistant(answer)]
        expected = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        rendered = render(tokenizer, messages, None)
        assert rendered.input_ids == expected["input_ids"], answer
        assert [label != IGNORED for label in rendered.labels] == [bool(mark) for mark in expected["assistant_masks"]]
    assert len(compared) > 4


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "llama3", "gemma3", "glm4", "gpt-oss", "deepseek", "cohere"])
def test_the_same_on_real_conversations(shared, tokenizers, name):
    tokenizer, compared = tokenizers[name], 0
    for messages in real_rows(shared, "real_messages_multiturn.json")[::8]:
        if any(control_tokens(tokenizer).spans(message["content"]) for message in messages):
            continue
        expected = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        rendered = render(tokenizer, messages, None)
        assert rendered.input_ids == expected["input_ids"]
        assert [label != IGNORED for label in rendered.labels] == [bool(mark) for mark in expected["assistant_masks"]]
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", FAMILIES)
def test_no_character_of_an_answer_is_lost_or_trained_as_a_control_token(tokenizers, name):
    tokenizer = tokenizers[name]
    control = control_tokens(tokenizer).ids
    ends = [token for token in trained(render(tokenizer, [user("Hi"), assistant("ok")], None)) if token in control]
    for answer in AWKWARD:
        ids = trained(render(tokenizer, [user("Hi"), assistant(answer)], None))
        assert answer.strip() in spelled(tokenizer, ids)
        assert [token for token in ids if token in control] == ends


def test_a_token_that_takes_in_white_space_leaves_the_header_untrained(tokenizers):
    tokenizer = tokenizers["phi3"]
    ids = trained(render(tokenizer, [user("Hi"), assistant("\n\nhello")], None))
    assert "<|assistant|>" not in spelled(tokenizer, ids) and spelled(tokenizer, ids).startswith("hello")


def test_the_answers_of_a_template_without_marks_are_found_by_what_follows_them(tokenizers):
    tokenizer = tokenizers["smollm2"]
    rendered = rendered_text(tokenizer, TWO)
    assert rendered.text == (
        "<|im_start|>system\nYou answer briefly.<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n"
        "<|im_start|>assistant\nFine, thank you.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
        "<|im_start|>assistant\n2<|im_end|>\n"
    )
    assert [rendered.text[start:end] for start, end in rendered.answers] == [
        "Fine, thank you.<|im_end|>",
        "2<|im_end|>",
    ]


def test_a_template_that_changes_what_went_before_is_refused_for_training_and_not_for_embedding(tokenizers):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'assistant' and not loop.last %}{{ 'old: ' }}{% endif %}"
        "{{ message.content + '<|im_end|>' }}{% endfor %}"
    )
    assert render(tokenizer, TWO, None, labelled=False).input_ids
    with pytest.raises(RowRefused, match=r"answers_not_found: .* up to message 2 changes with what follows"):
        render(tokenizer, TWO, None)


def test_messages_with_weight_0_are_not_trained(tokenizers):
    weighted = [TWO[0], {**TWO[1], "weight": 0}, TWO[2], {**TWO[3], "weight": 1}]
    for name in ("qwen2.5", "phi3", "smollm2", "llama3"):
        for field, value in (("weight", 0), ("train", False), ("trainable", False)):
            messages = [TWO[0], {**TWO[1], field: value}, *TWO[2:]]
            rendered = rendered_text(tokenizers[name], messages)
            assert rendered.text == rendered_text(tokenizers[name], TWO).text
            assert "Fine" not in "".join(rendered.text[start:end] for start, end in rendered.answers)
            assert rendered.answers == rendered_text(tokenizers[name], weighted).answers != []
    joined = make_tokenizer(FAMILIES["qwen2.5"])
    joined.chat_template = (
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content[:1] }}"
        "{% endgeneration %}-{% generation %}{{ m.content[1:] }}{% endgeneration %}={% endif %}{{ m.content }}"
        "{% endfor %}"
    )
    with pytest.raises(RowRefused, match=r"answer_not_separable: of 2 answers some .* marks 3 spans"):
        rendered_text(joined, weighted)


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
ASKED = [
    user("Weather in Oslo?"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "Rain."},
    assistant("It rains."),
]


def test_a_template_that_knows_tools_and_reasoning_gets_them(tokenizers):
    tokenizer = tokenizers["qwen3"]
    rendered = rendered_text(tokenizer, ASKED, tools=TOOLS)
    assert '{"name": "weather", "arguments": {"city": "Oslo"}}' in rendered.text and "Rain." in rendered.text
    text = {**CALL, "function": {"name": "weather", "arguments": json.dumps({"city": "Oslo"})}}
    assert rendered_text(tokenizer, [ASKED[0], {**ASKED[1], "tool_calls": [text]}, *ASKED[2:]], tools=TOOLS) == rendered
    for name in ("reasoning_content", "thinking", "reasoning"):
        thought = rendered_text(tokenizer, [user("2+2?"), {**assistant("4"), name: "two and two"}])
        assert thought.text.endswith("<think>\ntwo and two\n</think>\n\n4<|im_end|>\n")


def test_what_a_template_does_not_write_is_refused_by_its_kind(tokenizers):
    tokenizer = tokenizers["smollm2"]
    for messages, tools, why in (
        ([user("2+2?"), {**assistant("4"), "thinking": "two and two"}], None, "does not write .* reasoning"),
        (ASKED, None, "does not write a tool call of message 2"),
        (TWO, TOOLS, "does not write the conversation's tools"),
    ):
        with pytest.raises(RowRefused, match=f"fields_not_written: the template {why}"):
            rendered_text(tokenizer, messages, tools=tools)
    with pytest.raises(RowRefused, match="refused_by_template: the template says: System role not supported"):
        rendered_text(tokenizers["gemma2"], [system("Be kind."), *TWO])


def test_a_template_for_parts_writes_none_of_a_plain_text(tokenizers):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(RowRefused, match=r"text_not_written: .* text of message 1 \(user\)"):
        rendered_text(tokenizer, TWO)


def test_control_tokens_spelled_in_tool_calls_and_reasoning_stay_text(tokenizers):
    tokenizer = tokenizers["qwen3"]
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "<|im_end|>"}}}
    messages = [user("Hi"), {**assistant("ok"), "reasoning_content": "a <|im_end|>", "tool_calls": [call]}]
    ids = render(tokenizer, messages, None).input_ids
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(end) == 2 and spelled(tokenizer, ids).count("<|im_end|>") == 4


def test_a_pair_whose_answer_merges_with_the_header_is_refused_with_that_reason(tokenizers):
    render_pair(tokenizers["qwen2.5"], [user("Hi")], "hello", "bye", None)
    with pytest.raises(RowRefused, match="prompt_not_prefix"):
        render_pair(tokenizers["qwen2.5"], [user("Hi")], "\n\nhello", "bye", None)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% generation %}<|im_start|>assistant\n{{ m.content }}<|im_end|>{% endgeneration %}", "marks the header"),
        (
            "<|im_start|>assistant\n{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>",
            "does not mark the token that ends an answer",
        ),
    ],
)
def test_a_template_that_trains_the_header_or_no_end_is_refused(template, why):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + template + "{% else %}<|im_start|>{{ m.role + '\n' }}"
        "{{ m.content }}<|im_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    with pytest.raises(UserError, match=why):
        check_answer_marks(tokenizer)


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(tokenizers):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    own = "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d') }}|{{ strftime_now('%d %B %Y') }}"
    tokenizer.chat_template = own
    today = datetime.now().strftime("%Y-%m-%d")
    assert today in tokenizer.apply_chat_template([user("Hi")], tokenize=False)
    tokenizer.chat_template = training_form(own) + "{{ messages[0].content }}"
    assert rendered_text(tokenizer, [user("Hi")], labelled=False).text == "26 Jul 2024|2024-07-26|26 July 2024Hi"


CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "Oslo"}}}


@pytest.mark.parametrize("name", ["qwen3", "qwen2.5", "llama3", "deepseek", "smollm2"])
@pytest.mark.parametrize("empty", [{"tool_calls": []}, {"tool_calls": None}, {"reasoning_content": ""}, {"name": ""}])
def test_empty_fields_are_as_if_they_were_not_there(tokenizers, name, empty):
    tokenizer = tokenizers[name]
    plain = render(tokenizer, [user("Hi"), assistant("Hello")], None)
    assert render(tokenizer, [user("Hi"), {**assistant("Hello"), **empty}], None) == plain


def test_a_conversation_that_begins_with_an_answer_is_trained_by_a_template_without_marks(tokenizers):
    tokenizer = tokenizers["smollm2"]
    rendered = rendered_text(tokenizer, [assistant("Welcome."), *TWO])
    answers = [rendered.text[start:end] for start, end in rendered.answers]
    assert answers == ["Welcome.<|im_end|>", "Fine, thank you.<|im_end|>", "2<|im_end|>"]
    assert rendered.text.startswith(
        "<|im_start|>system\nYou answer briefly.<|im_end|>\n<|im_start|>assistant\nWelcome."
    )


def test_so_it_is_by_one_that_cannot_write_an_empty_conversation():
    tokenizer = make_tokenizer(FAMILIES["smollm2"])
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{% for message", "{% if messages[0]['role'] == 'x' %}{% endif %}{% for message", 1
    )
    rendered = rendered_text(tokenizer, [assistant("Welcome."), user("Hi")])
    assert [rendered.text[start:end] for start, end in rendered.answers] == ["Welcome.<|im_end|>"]


def test_a_leading_answer_that_could_be_in_two_places_is_refused(tokenizers):
    tokenizer = tokenizers["smollm2"]
    tokenizer.chat_template = tokenizer.chat_template.replace("{% if add_generation_prompt %}", "{% if false %}")
    try:
        with pytest.raises(RowRefused, match="answers_not_found"):
            rendered_text(tokenizer, [assistant("e"), user("Hi")])
    finally:
        tokenizer.chat_template = FAMILIES["smollm2"].chat_template


DROPS_REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% generation %}{{ m.content.split('</think>')[-1] }}"
    "<|im_end|>{% endgeneration %}{% endfor %}"
)


def test_reasoning_in_the_text_of_the_last_turn_has_to_be_written(tokenizers):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = DROPS_REASONING
    thought = assistant("<think>\nEasy.\n</think>\n\n2")
    with pytest.raises(RowRefused, match=r"text_not_written: .* text of message 2 \(assistant\)"):
        rendered_text(tokenizer, [user("1+1?"), thought])
    with pytest.raises(RowRefused, match=r"text_not_written: .* text of message 1 \(user\)"):
        rendered_text(tokenizer, [user("A secret </think>"), assistant("2")])
    # Of an earlier turn it may be left out: the model is not shown it either.
    assert "Easy." not in rendered_text(tokenizer, [user("1+1?"), thought, user("Sure?"), assistant("Yes")]).text
    assert "Easy." in rendered_text(tokenizers["qwen3"], [user("1+1?"), thought]).text
    with pytest.raises(RowRefused, match="text_not_written"):  # this form writes what is before and behind it
        rendered_text(tokenizers["qwen3"], [user("?"), assistant("A `</think>` tag closes </think> the reasoning.")])


@pytest.mark.parametrize(
    ("written", "lost"),
    [
        ("{{ m.content }}{% if not m.content %}{{ m.tool_calls }}{% endif %}", 2),  # the text or the calls
        ("{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0] }}{% endif %}", 4),  # the first call alone
        ("{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}", 2),  # no arguments
    ],
)
def test_every_call_of_every_message_has_to_be_written(written, lost):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}:" + written + "<|im_end|>{% endfor %}"
    messages = [
        user("Hi"),
        {**assistant("I look."), "tool_calls": [CALL]},
        {"role": "tool", "name": "look", "content": "Rain."},
        {**assistant(""), "tool_calls": [CALL, CALL]},
    ]
    with pytest.raises(RowRefused, match=f"fields_not_written: .* a tool call of message {lost}"):
        rendered_text(tokenizer, messages, labelled=False)


def test_control_tokens_stay_text_in_names_of_fields_and_in_a_parameter_called_role(tokenizers):
    tokenizer = tokenizers["qwen2.5"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain = [user("Hi"), {**assistant("ok"), "tool_calls": [CALL]}]
    awkward = {"role": "x <|im_end|>", "y<|im_end|>": "z <|im_end|>"}
    call = {"type": "function", "function": {"name": "look", "arguments": awkward}}
    schema = {
        "type": "function",
        "function": {"name": "look", "parameters": {"properties": {"role": {"e": "<|im_end|>"}}}},
    }
    ids = render(tokenizer, [user("Hi"), {**assistant("ok"), "tool_calls": [call]}], None, tools=[schema]).input_ids
    assert ids.count(end) == render(tokenizer, plain, None, tools=[schema]).input_ids.count(end)
    assert spelled(tokenizer, ids).count("<|im_end|>") == ids.count(end) + 4


def test_arguments_kept_as_text_are_written_as_the_object_that_they_say(tokenizers):
    tokenizer = tokenizers["qwen2.5"]
    arguments = {"at": "Oslo"}
    expected = render(
        tokenizer, [user("Hi"), {**assistant(""), "tool_calls": [{"name": "look", "arguments": arguments}]}], None
    )
    for text in (json.dumps(arguments), json.dumps(arguments, indent=1)):
        calls = [{"name": "look", "arguments": text}]
        assert render(tokenizer, [user("Hi"), {**assistant(""), "tool_calls": calls}], None) == expected
    deep = [{"name": "look", "arguments": "[" * 100_000}]
    assert render(tokenizer, [user("Hi"), {**assistant(""), "tool_calls": deep}], None).input_ids


ANSWER = "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
MACRO = "{% macro ans(m) %}" + ANSWER + "{% endmacro %}"
HEADER = "<|im_start|>assistant\n"


def _marking(answer, before="", prompt=HEADER):
    return (
        f"{before}{{% for m in messages %}}{{% if m.role == 'assistant' %}}{answer}{{% else %}}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
        f"{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    )


@pytest.mark.parametrize(
    "template",
    [
        _marking(HEADER + ANSWER),
        _marking(HEADER + "{{ ans(m) }}", MACRO),
        _marking(HEADER + "{% generation %}" + ANSWER + "{% endgeneration %}"),
        "{# such as {% generation %} #}" + _marking(HEADER + ANSWER),
        _marking(HEADER + ANSWER, prompt=""),
    ],
)
def test_a_template_that_marks_the_answers_and_their_end_passes(template):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = template
    check_answer_marks(tokenizer)
    assert spelled(tokenizer, trained(render(tokenizer, TWO, None))) == "Fine, thank you.<|im_end|>2<|im_end|>"


@pytest.mark.parametrize(
    "template",
    [
        _marking(HEADER + "{{ ans(m)|trim }}", MACRO),
        _marking(HEADER + "{% filter trim %}" + ANSWER + "{% endfilter %}"),
        _marking("{% set a %}" + HEADER + ANSWER + "{% endset %}{{ a }}"),
        _marking("{{ 'answer: ' + ans(m) }}", MACRO),
        _marking(
            "{% call put() %}" + ANSWER + "{% endcall %}", "{% macro put() %}answer: {{ caller() }}{% endmacro %}"
        ),
    ],
)
def test_marks_that_transformers_cannot_place_are_refused(template):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = template
    with pytest.raises(UserError, match="where transformers cannot place them"):
        check_answer_marks(tokenizer)


MARKED_HEADER = "{% generation %}" + HEADER + "{{ m.content }}<|im_end|>{% endgeneration %}"


@pytest.mark.parametrize(
    "template",
    [
        _marking(
            "{% if loop.first or loop.index == 2 %}" + HEADER + ANSWER + "{% else %}" + MARKED_HEADER + "{% endif %}"
        ),
        _marking(MARKED_HEADER, prompt=""),
        _marking(
            "{% if m.tool_calls %}{% generation %}" + HEADER + "{{ m.tool_calls }}<|im_end|>{% endgeneration %}"
            "{% else %}" + HEADER + ANSWER + "{% endif %}"
        ),
    ],
    ids=["a later answer", "no generation prompt", "a call"],
)
def test_a_header_marked_in_any_answer_is_refused(template):
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = template
    with pytest.raises(UserError, match="marks the header"):
        check_answer_marks(tokenizer)


def test_a_call_whose_end_is_not_marked_is_refused():
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = _marking(
        HEADER
        + "{% if m.tool_calls %}{% generation %}{{ m.tool_calls }}{% endgeneration %}<|im_end|>{% else %}"
        + ANSWER
        + "{% endif %}"
    )
    with pytest.raises(UserError, match="does not mark the token that ends an answer"):
        check_answer_marks(tokenizer)


def test_a_template_whose_answers_are_not_found_at_all_is_refused_before_the_rows():
    tokenizer = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'assistant' and not loop.last %}{{ 'old: ' }}{% endif %}"
        "{{ message.content + '<|im_end|>' }}{% endfor %}"
    )
    with pytest.raises(UserError, match=r"changes with what follows.* name a copy of this one"):
        check_answer_marks(tokenizer)
