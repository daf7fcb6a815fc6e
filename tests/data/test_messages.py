"""What is kept of a message, under whichever keys it stands."""

import datetime
import json
import math

import pytest
from messages import assistant, system, tool, user

from deita_train.data.conversations import DEFAULT_ROLES, merge_roles, to_messages
from deita_train.data.messages import Reading, UnusableRow, read_messages

CALLS = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}}]
FIELDS = {
    "reasoning_content": "think",
    "thinking": "so",
    "reasoning": "hm",
    "tool_calls": CALLS,
    "tool_call_id": "c1",
    "name": "Ann",
    "weight": 1,
    "train": True,
    "trainable": 1.0,
    "score": 0.7,
    "meta": {"a": [1, None, {"b": "x"}]},
}


def read(*messages, roles=DEFAULT_ROLES, **keys):
    return read_messages(list(messages), roles, "messages", **keys)


def refused(*messages):
    with pytest.raises(UnusableRow) as caught:
        read(*messages)
    return caught.value


@pytest.mark.parametrize("keys", [("role", "content"), ("role", "text"), ("role", "value"), ("from", "value")])
@pytest.mark.parametrize("speaker_key", ["role", "from"])
def test_every_field_is_kept_under_every_pair_of_keys(keys, speaker_key):
    def said(speaker, text, **fields):
        return dict(zip(keys, (speaker, text), strict=True)) | fields

    found = read(said("user", "q", note=None), said("assistant", "a", **FIELDS), speaker_key=speaker_key)
    assert found == Reading([user("q"), assistant("a") | FIELDS])
    assert list(found.messages[1]) == ["role", "content", *FIELDS]


@pytest.mark.parametrize("speaker", ["human", "user"])
def test_from_with_content_and_from_with_text(speaker):
    for key in ("content", "text"):
        turns = [{"from": speaker, key: "q"}, {"from": "gpt", key: "a"}]
        assert read(*turns).messages == read(*turns, speaker_key="from").messages == [user("q"), assistant("a")]


def test_every_format_keeps_the_fields():
    turns = [user("q") | {"name": "Bo"}, assistant("a") | FIELDS]
    assert to_messages({"messages": turns}, "messages") == turns
    assert to_messages({"conversations": turns}, "sharegpt") == turns
    assert to_messages({"prompt": turns[:1], "completion": turns[1:]}, "prompt_completion") == turns


def test_nulls_that_parquet_filled_in_do_not_exist():
    empty = dict.fromkeys((*FIELDS, "from", "value", "text"))
    assert read({**empty, **user("q")}, {**empty, **assistant("a"), "train": False}).messages == [
        user("q"),
        assistant("a") | {"train": False},
    ]


EMPTY = [
    ("tool_calls", [[], "", "[]", " [ ] ", "null", {}]),
    ("function_call", ["", {}, "null"]),
    ("reasoning_content", ["", " \n", []]),
    ("thinking", [""]),
    ("reasoning", ["", {}]),
    ("tool_call_id", [""]),
    ("name", [""]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in EMPTY for value in values])
def test_fields_that_libraries_write_empty_do_not_exist(name, value):
    turns = [user("q") | {name: value}, assistant("a") | {name: value}, tool("r") | {name: value}]
    assert read(*turns).messages == [user("q"), assistant("a"), tool("r")]
    assert refused(user("q"), assistant("") | {name: value}).reason == "empty_message"
    other = assistant("a") | {name: value, "weight": 0, "own": ""}
    assert read(user("q"), other).messages[1] == assistant("a") | {"weight": 0, "own": ""}


def test_zero_and_false_are_not_empty():
    assert read(user("q") | {"name": 0}, assistant("a")).messages[0] == user("q") | {"name": 0}
    assert refused(user("q"), assistant("a") | {"tool_calls": False}).reason == "bad_tool_calls"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_do_not_exist_either(value):
    found = read(user("q") | {"score": value}, assistant("a") | {"meta": {"p": 1}, "score": value}).messages
    assert found == [user("q"), assistant("a") | {"meta": {"p": 1}}]
    assert refused(user("q"), assistant("a") | {"weight": value}).reason == "bad_weight"


@pytest.mark.parametrize(
    ("message", "reason", "detail"),
    [
        ({"role": "\ud800x", "content": "q"}, "unknown_role", r"message 1 has the role '\ud800x'"),
        (user("\ud800"), "not_text", "message 1 holds a lone surrogate, which is not Unicode text"),
        (
            user("q") | {"\ud800f": 1},
            "not_text",
            r"the name of field '\ud800f' of message 1 holds a lone surrogate, which is not Unicode text",
        ),
        (
            user("q") | {"meta": {"\ud800f": 1}},
            "not_text",
            "message 1, field 'meta' holds a lone surrogate, which is not Unicode text",
        ),
    ],
)
def test_a_lone_surrogate_anywhere_refuses_the_message_in_unicode_text(message, reason, detail):
    verdict = refused(message, assistant("a"))
    assert (verdict.reason, verdict.detail) == (reason, detail)
    assert verdict.unknown_roles == ((r"'\ud800x'",) if reason == "unknown_role" else ())


def test_a_speaker_and_a_text_that_stand_twice():
    twice = {"from": "human", "role": "assistant", "value": "q", "content": "q"}
    assert read(twice, assistant("a"), speaker_key="from").messages[0] == user("q")
    other = refused({"from": "human", "value": "q", "content": "r"}, assistant("a"))
    assert (other.reason, other.detail) == ("not_text", "column 'messages', message 1 has two texts, value and content")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([{"type": "text", "text": "a"}], "a"),
        ([{"type": "text", "text": "a "}, "b", {"type": "input_text", "text": "\nc"}], "a b\nc"),
        ([{"type": "output_text", "text": "a", "annotations": []}, {"text": "b"}], "ab"),
        (["", "x"], "x"),
    ],
)
def test_parts_of_text_are_joined(parts, text):
    assert read(user(parts), assistant(parts)).messages == [user(text), assistant(text)]


@pytest.mark.parametrize("kind", ["image_url", "image", "input_audio", "video", "file"])
def test_parts_that_are_not_text_are_named(kind):
    verdict = refused(user([{"type": "text", "text": "secret"}, {"type": kind, kind: "data"}]), assistant("a"))
    assert verdict.reason == "not_text"
    assert verdict.detail == f"message 1 holds a part of the type {kind!r}, not only text"


def test_developer_is_system_and_tools_have_roles():
    turns = [
        {"role": "developer", "content": "s"},
        user("q"),
        assistant("a"),
        {"role": "function", "content": "x", "name": "f"},
    ]
    assert read(*turns).messages == [system("s"), user("q"), assistant("a"), tool("x") | {"name": "f"}]


@pytest.mark.parametrize("text", ["", None, " \n", [], [{"type": "text", "text": " "}]])
def test_system_messages_without_text_are_left_out_and_counted(text):
    turns = [system(text), user("q"), system(text), assistant("a"), system("kept")]
    assert read(*turns) == Reading([user("q"), assistant("a"), system("kept")], 2)


@pytest.mark.parametrize(
    "more", [{"tool_calls": CALLS}, {"reasoning_content": "r"}, {"thinking": "r"}, {"reasoning": "r"}]
)
@pytest.mark.parametrize("text", [None, "", []])
def test_an_answer_with_calls_or_reasoning_needs_no_text(more, text):
    assert read(user("q"), assistant(text) | more).messages[1] == assistant("") | more


def test_a_result_of_a_tool_may_be_empty():
    assert read(user("q"), assistant("a"), tool(None), tool("")).messages[2:] == [tool(""), tool("")]


def test_tool_calls_as_json_text():
    assert read(user("q"), assistant(None) | {"tool_calls": json.dumps(CALLS)}).messages[1]["tool_calls"] == CALLS


CALL = {"name": "f", "arguments": '{"x": 1}'}
WRAPPED = {"type": "function", "function": CALL}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (json.dumps(CALL), [WRAPPED]),
        (json.dumps([CALL, CALL]), [WRAPPED, WRAPPED]),
        (json.dumps([WRAPPED]), [WRAPPED]),
        (CALL, [WRAPPED]),
    ],
)
def test_sharegpts_tool_style(text, calls):
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": text, "weight": 0},
        {"from": "observation", "value": "[1]"},
        {"from": "gpt", "value": "a"},
    ]
    assert to_messages({"conversations": turns}, "sharegpt") == [
        user("q"),
        assistant("") | {"weight": 0, "tool_calls": calls},
        tool("[1]"),
        assistant("a"),
    ]


def test_a_recipe_may_say_that_a_function_call_is_something_else():
    turns = [user("q"), {"role": "function_call", "content": "said"}]
    assert read(*turns, roles=merge_roles({"function_call": "assistant"})).messages[1] == assistant("said")


@pytest.mark.parametrize("call", [CALL, json.dumps(CALL)])
def test_openais_former_function_call(call):
    turns = [user("q"), {"role": "assistant", "content": None, "function_call": call}, assistant("a")]
    assert read(*turns).messages[1] == assistant("") | {"tool_calls": [WRAPPED]}
    both = assistant("x") | {"function_call": CALL, "tool_calls": CALLS}
    assert read(user("q"), both).messages[1] == both


def test_a_message_without_known_keys_says_what_is_read():
    unknown = refused({"speaker": "Ann", "utterance": "secret"})
    assert unknown.detail == (
        "message 1 has the role None (keys that are read: role or from; it has 'speaker', 'utterance')"
    )
    assert unknown.unknown_roles == ()
    textless = refused({"role": "user", "utterance": "secret"})
    assert textless.detail == (
        "message 1 holds null, not a string (keys that are read: content, value or text; it has 'utterance')"
    )
    assert refused({"role": "user", "content": None}).detail == "message 1 holds null, not a string"


def test_a_date_in_a_field_is_kept():
    day = datetime.date(2024, 2, 29)
    assert read(user("q") | {"day": day}, assistant("a")).messages[0]["day"] == day
