import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import assistant, system, user

from deita_train.data.conversations import (
    DEFAULT_ROLES,
    DROP_REASONS,
    FORMATS,
    UnusableRow,
    detect_format,
    merge_roles,
    to_messages,
    user_turns,
)
from deita_train.errors import UserError


def drop(row, format="messages", roles=DEFAULT_ROLES):
    with pytest.raises(UnusableRow) as caught:
        to_messages(row, format, roles)
    return caught.value


@pytest.mark.parametrize(
    ("columns", "format"),
    [
        (("id", "conversations", "source"), "sharegpt"),
        (("conversations", "messages"), "sharegpt"),
        (("prompt", "prompt_id", "messages"), "messages"),
        (("prompt", "chosen", "rejected", "messages"), "messages"),
        (("instruction", "input", "output"), "alpaca"),
        (("instruction", "output"), "alpaca"),
        (("prompt", "completion"), "prompt_completion"),
    ],
)
def test_detect_format(columns, format):
    assert detect_format(dict.fromkeys(columns)) == format


@pytest.mark.parametrize("columns", [("instruction", "input"), ("prompt", "response"), ("input", "target"), ()])
def test_no_format_lists_the_columns(columns):
    with pytest.raises(UserError) as caught:
        detect_format(dict.fromkeys(columns, "x"))
    for part in (*map(repr, columns), *FORMATS):
        assert part in str(caught.value)


def test_every_format_says_the_same():
    expected = [user("  Say hi.\n"), assistant("Hi.\t")]
    rows = {
        "sharegpt": {"conversations": [{"from": "human", "value": "  Say hi.\n"}, {"from": "gpt", "value": "Hi.\t"}]},
        "messages": {"messages": expected},
        "alpaca": {"instruction": "  Say hi.\n", "input": "", "output": "Hi.\t"},
        "prompt_completion": {"prompt": "  Say hi.\n", "completion": "Hi.\t"},
    }
    assert tuple(rows) == FORMATS
    for format, row in rows.items():
        assert to_messages(row, format) == expected
    assert to_messages({"conversations": expected}, "sharegpt") == expected
    assert to_messages({"prompt": expected[:1], "completion": expected[1:]}, "prompt_completion") == expected


def test_sharegpt_keys_that_parquet_filled_with_null():
    turns = [
        {"from": None, "value": None, "role": "user", "content": "q"},
        {"from": "gpt", "value": "a", "role": None, "content": None},
    ]
    assert to_messages({"conversations": turns}, "sharegpt") == [user("q"), assistant("a")]


@pytest.mark.parametrize(
    ("context", "asked"), [("x", "Do\n\nx"), (" x ", "Do\n\n x "), ("", "Do"), (None, "Do"), (" \n", "Do")]
)
def test_alpaca_input_follows_after_a_blank_line(context, asked):
    assert to_messages({"instruction": "Do", "input": context, "output": "ok"}, "alpaca") == [
        user(asked),
        assistant("ok"),
    ]


def test_alpaca_without_input_column():
    assert to_messages({"instruction": "Do", "output": "ok"}, "alpaca")[0] == user("Do")


@pytest.mark.parametrize(
    ("speaker", "role"),
    [("human", "user"), ("User", "user"), ("PROMPTER", "user"), ("gpt", "assistant"), ("Bot", "assistant")]
    + [(name, "assistant") for name in ("ChatGPT", "bing", "Bard", "assistant", "MODEL")],
)
def test_default_speakers_in_any_case(speaker, role):
    other = {"user": "assistant", "assistant": "user"}[role]
    turns = [{"from": speaker, "value": "x"}, {"from": other, "value": "y"}]
    assert [message["role"] for message in to_messages({"conversations": turns}, "sharegpt")] == [role, other]


def test_additional_roles_win_and_are_checked():
    roles = merge_roles({"Asker": "user", "BING": "user"})
    turns = [{"from": "aSKer", "value": "x"}, {"from": "GPT", "value": "y"}, {"from": "bing", "value": "z"}]
    found = to_messages({"conversations": turns}, "sharegpt", roles)
    assert [message["role"] for message in found] == ["user", "assistant", "user"]
    assert DEFAULT_ROLES["bing"] == "assistant"
    with pytest.raises(UserError, match="'tool' is mapped to 'function'"):
        merge_roles({"tool": "function"})


@pytest.mark.parametrize(
    "messages",
    [
        [user("q"), assistant("a")],
        [system("s"), user("q"), assistant("a")],
        [assistant("hello"), user("q"), assistant("a")],
        [user("q"), assistant("a"), user("r")],
        [system("s"), assistant("hello"), user("q")],
    ],
)
def test_allowed_orders(messages):
    assert to_messages({"messages": messages}, "messages") == messages


def message_row(*messages):
    return {"messages": list(messages)}


UNUSABLE = [
    ("missing_conversation", "messages", {"text": "x"}, "absent; the row has 'text'"),
    ("missing_conversation", "messages", {"messages": None}, "is null"),
    ("missing_conversation", "messages", {"messages": "x"}, "is str, not a list"),
    ("missing_conversation", "messages", {"messages": []}, "empty list"),
    ("missing_conversation", "messages", message_row(user("q"), "a"), "message 2 is str, not an object"),
    ("missing_conversation", "alpaca", {"instruction": "x", "output": None}, "'output' is null"),
    ("missing_conversation", "prompt_completion", {"prompt": [], "completion": "a"}, "'prompt' is an empty list"),
    (
        "unknown_role",
        "messages",
        message_row(user("q"), {"role": "tool", "content": None}),
        "message 2 has the role 'tool'",
    ),
    ("unknown_role", "messages", message_row({"content": "q"}, assistant("a")), "message 1 has the role None"),
    ("unknown_role", "messages", message_row({"from": "human", "value": "q"}), "message 1 has the role None"),
    ("not_text", "messages", message_row(user("q"), assistant(None)), "message 2 holds null"),
    ("not_text", "messages", message_row(user([{"type": "text"}]), assistant("")), "message 1 holds list"),
    ("not_text", "messages", message_row(user("q \ud83d"), assistant("a")), "message 1 holds a lone surrogate"),
    ("not_text", "alpaca", {"instruction": "x", "input": 3, "output": "y"}, "'input' is int"),
    ("not_text", "alpaca", {"instruction": "x", "output": 3}, "message 2 holds int"),
    ("not_text", "prompt_completion", {"prompt": "x", "completion": {"a": 1}}, "message 2 holds dict"),
    ("empty_message", "messages", message_row(user("q"), assistant(" \n\t\u3000")), "message 2 (assistant)"),
    ("empty_message", "messages", message_row(system(""), user("q"), assistant("a")), "message 1 (system)"),
    ("empty_message", "alpaca", {"instruction": " ", "input": "x", "output": "y"}, "message 1 (user)"),
    (
        "system_not_first",
        "messages",
        message_row(user("q"), system("s"), assistant("a")),
        "message 2 is a system message",
    ),
    ("system_not_first", "messages", message_row(system("s"), system("s")), "message 2 is a system message"),
    ("no_user_turn", "messages", message_row(system("s"), assistant("a")), "system, assistant"),
    ("no_assistant_turn", "messages", message_row(user("q"), user("r")), "user, user"),
    (
        "roles_do_not_alternate",
        "messages",
        message_row(user("q"), user("r"), assistant("a")),
        "messages 1 and 2 are both user",
    ),
    (
        "roles_do_not_alternate",
        "messages",
        message_row(user("q"), assistant("a"), assistant("b")),
        "2 and 3 are both assistant",
    ),
]


@pytest.mark.parametrize(("reason", "format", "row", "detail"), UNUSABLE)
def test_unusable_rows(reason, format, row, detail):
    verdict = drop(row, format)
    assert verdict.reason == reason
    assert detail in verdict.detail


def test_every_reason_is_tried_above():
    assert {reason for reason, *_ in UNUSABLE} == set(DROP_REASONS)
    assert len(DROP_REASONS) == 8


def test_unknown_roles_are_named_once_each():
    row = message_row(*({"role": role, "content": "x"} for role in ("tool", "user", "Critic", "tool", 7)))
    assert drop(row).unknown_roles == ("tool", "Critic", "7")
    assert drop(message_row(user(""))).unknown_roles == ()


def test_unknown_format():
    with pytest.raises(UserError, match="'alpacca' is unknown; allowed are sharegpt, messages"):
        to_messages({}, "alpacca")


def test_user_turns_are_paired_by_role():
    assert user_turns([user("q"), assistant("a"), user("r")]) == [("q", "a"), ("r", None)]
    assert user_turns([system("s"), assistant("hi"), user("q"), assistant("a")]) == [("q", "a")]
    assert user_turns([assistant("hi")]) == []
    assert user_turns([user("q"), user("r"), assistant("a")]) == [("q", None), ("r", "a")]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip() != "")


@st.composite
def conversations(draw):
    """Well-formed conversations: an optional system message, then user and assistant by turns, at least one of each."""
    texts = draw(st.lists(TEXTS, min_size=2, max_size=6))
    first = draw(st.integers(0, 1))
    messages = [(user, assistant)[(first + place) % 2](text) for place, text in enumerate(texts)]
    return ([system(draw(TEXTS))] if draw(st.booleans()) else []) + messages


@given(conversations())
def test_well_formed_conversations_round_trip(messages):
    speakers = {"user": "Human", "assistant": "gpt", "system": "SYSTEM"}
    turns = [{"from": speakers[message["role"]], "value": message["content"]} for message in messages]
    assert to_messages({"messages": messages}, "messages") == messages
    assert to_messages({"conversations": turns}, "sharegpt") == messages
    pairs = user_turns(messages)
    assert [question for question, _ in pairs] == [m["content"] for m in messages if m["role"] == "user"]
    answers = [answer for _, answer in pairs if answer is not None]
    first_user = [message["role"] for message in messages].index("user")
    assert answers == [m["content"] for m in messages[first_user:] if m["role"] == "assistant"]
