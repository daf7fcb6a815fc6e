"""Conversations as text, each expectation written by hand from the stated rules."""

from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import assistant, system, tool, user

from deita_train.data.as_text import conversation_as_text, message_text
from deita_train.data.conversations import check_order


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (user(" q\n"), " q\n"),
        (user("q") | {"tool_calls": [call("f", {})], "reasoning": "r"}, "q"),
        (system("s") | {"name": "x"}, "s"),
        (tool("12"), "<tool_response>\n12\n</tool_response>"),
        (tool("") | {"tool_call_id": "c"}, "<tool_response>\n\n</tool_response>"),
        (assistant("a") | {"weight": 0, "score": 3}, "a"),
        (assistant("a") | {"tool_calls": []}, "a"),
        (assistant("a") | {"reasoning_content": "r\nr"}, "<think>\nr\nr\n</think>\n\na"),
        (assistant("") | {"reasoning_content": " ", "thinking": "t"}, "<think>\nt\n</think>\n\n"),
        (assistant("a") | {"reasoning": ["not text"]}, "a"),
        (
            assistant("") | {"tool_calls": [call("f", {"x": "é"})]},
            '<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call>',
        ),
        (
            assistant("a")
            | {"reasoning": "r", "tool_calls": [call("f", '{"x": 0.7}'), {"name": "g", "arguments": None}]},
            '<think>\nr\n</think>\n\na\n<tool_call>\n{"name": "f", "arguments": {"x": 0.7}}\n</tool_call>\n'
            '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
        ),
        (
            assistant("") | {"tool_calls": [call("f", "{broken")]},
            '<tool_call>\n{"name": "f", "arguments": "{broken"}\n</tool_call>',
        ),
        (
            assistant("") | {"tool_calls": [{"type": "custom", "custom": {"input": "x"}}]},
            '<tool_call>\n{"type": "custom", "custom": {"input": "x"}}\n</tool_call>',
        ),
    ],
)
def test_a_message_as_text(message, text):
    assert message_text(message) == text


def test_a_plain_conversation_stays_as_it_is():
    plain = [system("s"), user("q"), assistant("a"), user("r")]
    assert conversation_as_text(plain) == plain
    assert conversation_as_text(plain[1:]) == plain[1:]
    assert conversation_as_text([assistant("hi"), *plain[1:]]) == [assistant("hi"), *plain[1:]]


def test_tools_become_turns_of_the_user():
    messages = [
        user("q"),
        assistant("") | {"tool_calls": [call("f", {}), call("g", {})]},
        tool("1"),
        tool("2"),
        assistant("a"),
        user("r"),
        assistant("b") | {"tool_calls": [call("f", {})]},
        tool("3"),
        user("s"),
    ]
    f, g = (f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>' for name in "fg")
    one, two, three = (f"<tool_response>\n{number}\n</tool_response>" for number in "123")
    assert conversation_as_text(messages, [{"name": "f"}, {"name": "g"}]) == [
        system('<tools>\n{"name": "f"}\n{"name": "g"}\n</tools>'),
        user("q"),
        assistant(f"{f}\n{g}"),
        user(f"{one}\n{two}"),
        assistant("a"),
        user("r"),
        assistant(f"b\n{f}"),
        user(f"{three}\n\ns"),
    ]


def test_system_messages_later_on_belong_to_the_user_beside_them():
    messages = [
        system("s"),
        system("t"),
        user("q"),
        system("u"),
        assistant("a"),
        system("v"),
        user("r"),
        assistant("b"),
    ]
    expected = [system("s\n\nt"), user("q\n\nu"), assistant("a"), user("v\n\nr"), assistant("b")]
    assert conversation_as_text(messages) == expected
    assert conversation_as_text([*messages, system("w")]) == [*expected, user("w")]
    assert conversation_as_text(messages, [{"name": "f"}])[0] == system('s\n\nt\n\n<tools>\n{"name": "f"}\n</tools>')
    assert conversation_as_text([]) == []


CALLS = st.lists(st.sampled_from([["tool", "assistant"], ["tool", "tool", "assistant"]]), max_size=2)
TURN = st.tuples(st.booleans(), CALLS).map(
    lambda turn: ["system"] * turn[0] + ["user", "assistant", *chain.from_iterable(turn[1])]
)
ROLES = st.lists(TURN, min_size=1, max_size=3).map(lambda turns: list(chain.from_iterable(turns)))


@given(ROLES)
def test_a_template_that_knows_three_roles_can_write_every_conversation(roles):
    check_order(roles)
    messages = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]
    found = conversation_as_text(messages)
    spoken = [message["role"] for message in found]
    assert "system" not in spoken[1:] and "tool" not in spoken
    assert all(one != other for one, other in pairwise(spoken))
    assert [m["content"] for m in found if m["role"] == "assistant"] == [
        m["content"] for m in messages if m["role"] == "assistant"
    ]
    whole = "\n".join(message["content"] for message in found)
    places = [whole.index(message["content"]) for message in messages]
    assert places == sorted(places)


def test_what_is_not_to_be_trained_stays_so():
    messages = [user("q"), {**assistant("a"), "weight": 0, "score": 3}]
    assert conversation_as_text(messages) == [user("q"), {**assistant("a"), "weight": 0}]
