import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import assistant, system, tool, user

from deita_train.data.conversations import (
    DEFAULT_ROLES,
    DROP_REASONS,
    FORMATS,
    UnusableRow,
    detect_format,
    is_trained,
    merge_roles,
    to_conversation,
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
        (("conversations", "messages"), "messages"),
        (("prompt", "prompt_id", "messages"), "messages"),
        (("prompt", "chosen", "rejected", "messages"), "messages"),
        (("instruction", "input", "output"), "alpaca"),
        (("instruction", "output"), "alpaca"),
        (("prompt", "completion"), "prompt_completion"),
        (("instruction", "context", "response", "category"), "instruction_response"),
        (("instruction", "response"), "instruction_response"),
        (("instruction", "output", "response"), "alpaca"),
        (("question", "answer", "system_prompt"), "question_answer"),
        (("query", "response", "type"), "query_response"),
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
        "instruction_response": {"instruction": "  Say hi.\n", "context": "", "response": "Hi.\t"},
        "question_answer": {"question": "  Say hi.\n", "answer": "Hi.\t"},
        "query_response": {"query": "  Say hi.\n", "response": "Hi.\t"},
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
    with pytest.raises(UserError, match=r"'tool' is mapped to 'function'.*system, user, assistant, tool"):
        merge_roles({"tool": "function"})
    called = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "Plugin", "value": "x"}]
    assert to_messages({"conversations": called}, "sharegpt", merge_roles({"plugin": "tool"}))[2] == tool("x")


@pytest.mark.parametrize(
    "messages",
    [
        [user("q"), assistant("a")],
        [system("s"), user("q"), assistant("a")],
        [assistant("hello"), user("q"), assistant("a")],
        [user("q"), assistant("a"), user("r")],
        [system("s"), assistant("hello"), user("q")],
        [system("s"), system("t"), user("q"), assistant("a")],
        [user("q"), system("s"), assistant("a"), system("t"), user("r")],
        [user("q"), assistant("calls"), tool("x"), assistant("a"), user("r"), assistant("b")],
        [user("q"), assistant("calls"), tool("x"), system("s"), tool("y"), assistant("a")],
        [user("q"), assistant("calls"), tool("x"), user("r"), assistant("b")],
        [user("q"), assistant("calls"), tool("x")],
    ],
)
def test_allowed_orders(messages):
    assert to_messages({"messages": messages}, "messages") == messages


def said(speaker, text):
    return {"from": speaker, "value": text}


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
        message_row(user("q"), {"role": "judge", "content": None}),
        "message 2 has the role 'judge'",
    ),
    ("unknown_role", "messages", message_row({"content": "q"}, assistant("a")), "message 1 has the role None"),
    ("unknown_role", "messages", message_row({"role": 7, "content": "q"}), "message 1 has the role 7"),
    ("bad_tool_calls", "messages", message_row(user("q"), {**assistant("a"), "tool_calls": "f(x)"}), "message 2 has"),
    ("bad_tool_calls", "messages", message_row(user("q"), {**assistant("a"), "tool_calls": ["f"]}), "list of objects"),
    (
        "bad_tool_calls",
        "sharegpt",
        {"conversations": [said("human", "q"), said("function_call", "{'name': 'f'}")]},
        "message 2 is a function call, but not in JSON",
    ),
    ("bad_tool_calls", "sharegpt", {"conversations": [said("human", "q"), said("function_call", "[]")]}, "message 2"),
    ("not_text", "messages", message_row(user("q"), assistant(None)), "message 2 holds null"),
    ("not_text", "messages", message_row(user([{"type": "text"}]), assistant("")), "a part whose text is null"),
    ("not_text", "messages", message_row(user([3]), assistant("a")), "message 1 holds a list with int"),
    ("not_text", "messages", message_row(user("q"), tool({"a": 1})), "message 2 holds dict, not a string"),
    (
        "not_text",
        "messages",
        message_row({**user("q"), "note": ["\ud83d"]}, assistant("a")),
        "field 'note' holds a lone",
    ),
    ("not_text", "messages", message_row({**user("q"), "image": b"x"}, assistant("a")), "field 'image' holds a value"),
    ("not_text", "sharegpt", {"conversations": [{**said("human", "q"), "content": "r"}]}, "two texts, value and"),
    ("not_text", "alpaca", {"instruction": "x", "output": "y", "system": "\ud83d"}, "column 'system', message 1 holds"),
    (
        "bad_weight",
        "messages",
        message_row(user("q"), {**assistant("a"), "weight": 0.5}),
        "message 2 has a weight other",
    ),
    ("bad_weight", "messages", message_row(user("q"), {**assistant("a"), "train": "false"}), "message 2 has a train"),
    ("bad_weight", "messages", message_row({**user("q"), "trainable": 2}, assistant("a")), "message 1 has a trainable"),
    ("not_text", "messages", message_row(user("q \ud83d"), assistant("a")), "message 1 holds a lone surrogate"),
    ("not_text", "alpaca", {"instruction": "x", "input": 3, "output": "y"}, "'input' is int"),
    ("not_text", "alpaca", {"instruction": "x", "output": 3}, "message 2 holds int"),
    ("not_text", "prompt_completion", {"prompt": "x", "completion": {"a": 1}}, "message 2 holds dict"),
    ("empty_message", "messages", message_row(user("q"), assistant(" \n\t\u3000")), "message 2 (assistant)"),
    ("empty_message", "messages", message_row(user("q"), {**assistant(""), "tool_calls": []}), "message 2 (assistant)"),
    ("empty_message", "messages", message_row(user("q"), {**assistant(""), "thinking": " "}), "message 2 (assistant)"),
    ("empty_message", "messages", message_row({**user([]), "tool_calls": [{}]}, assistant("a")), "message 1 (user)"),
    ("empty_message", "alpaca", {"instruction": " ", "input": "x", "output": "y"}, "message 1 (user)"),
    ("no_user_turn", "messages", message_row(system(""), system(None)), "the roles are (none)"),
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
    (
        "roles_do_not_alternate",
        "messages",
        message_row(user("q"), system("s"), user("r"), assistant("a")),
        "messages 1 and 3 are both user",
    ),
    (
        "roles_do_not_alternate",
        "sharegpt",
        {"conversations": [said("human", "q"), said("gpt", "a"), said("function_call", '{"name": "f"}')]},
        "2 and 3 are both assistant",
    ),
    (
        "tool_result_without_call",
        "messages",
        message_row(user("q"), tool("x"), assistant("a")),
        "message 2 is a tool's, with no assistant before it",
    ),
    (
        "not_text",
        "messages",
        {**message_row(user("q"), assistant("a")), "tools": [{"name": "\ud83d"}]},
        "column 'tools' holds a lone surrogate",
    ),
    ("bad_tools", "messages", {**message_row(user("q"), assistant("a")), "tools": "a hammer"}, "text, but not JSON"),
    ("bad_tools", "messages", {**message_row(user("q"), assistant("a")), "tools": ["f"]}, "not a list of objects"),
    ("bad_tools", "messages", {**message_row(user("q"), assistant("a")), "tools": {"name": "f"}}, "not a list"),
    (
        "missing_conversation",
        "alpaca",
        {"instruction": "q", "output": "a", "history": [["x"]]},
        "column 'history' is not a list of [instruction, response] pairs",
    ),
    ("not_text", "question_answer", {"question": "q", "answer": "a", "context": ["x"]}, "column 'context' is list"),
]


@pytest.mark.parametrize(("reason", "format", "row", "detail"), UNUSABLE)
def test_unusable_rows(reason, format, row, detail):
    verdict = drop(row, format)
    assert verdict.reason == reason
    assert detail in verdict.detail


def test_every_reason_is_tried_above():
    assert {reason for reason, *_ in UNUSABLE} == set(DROP_REASONS)
    assert len(DROP_REASONS) == 11


def test_unknown_roles_are_named_once_each():
    row = message_row(*({"role": role, "content": "x"} for role in ("judge", "user", "Critic", "judge", 7)))
    assert drop(row).unknown_roles == ("judge", "Critic", "7")
    assert drop(message_row(user(""))).unknown_roles == ()


def test_unknown_format():
    with pytest.raises(UserError, match="'alpacca' is unknown; allowed are sharegpt, messages"):
        to_messages({}, "alpacca")


def test_user_turns_are_paired_by_role():
    assert user_turns([user("q"), assistant("a"), user("r")]) == [("q", "a"), ("r", None)]
    assert user_turns([system("s"), assistant("hi"), user("q"), assistant("a")]) == [("q", "a")]
    assert user_turns([assistant("hi")]) == []
    assert user_turns([user("q"), user("r"), assistant("a")]) == [("q", None), ("r", "a")]


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
CALL_TEXT = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def test_a_response_is_everything_up_to_the_next_user_message():
    messages = [
        user("q"),
        {**assistant(""), "tool_calls": [CALL]},
        tool("12 degrees"),
        {**assistant("Mild."), "reasoning_content": "12 is mild"},
        system("be brief"),
        user("r"),
        assistant("Yes."),
    ]
    response = f"{CALL_TEXT}\n<tool_response>\n12 degrees\n</tool_response>\n<think>\n12 is mild\n</think>\n\nMild."
    assert user_turns(messages) == [("q", response), ("r", "Yes.")]
    assert user_turns([user("q"), system("s")]) == [("q", None)]


@pytest.mark.parametrize(
    ("fields", "trained"),
    [
        ({}, True),
        ({"weight": 1}, True),
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"train": False}, False),
        ({"trainable": False, "weight": 1}, False),
        ({"trainable": True}, True),
        ({"wait": 0}, True),
    ],
)
def test_which_answers_are_trained_on(fields, trained):
    turns = message_row(user("q"), {**assistant("a"), **fields})
    read = to_messages(turns, "messages")
    assert read == turns["messages"]
    assert is_trained(read[1]) is trained
    assert is_trained({**user("q"), **fields})


def test_a_system_message_beside_the_conversation():
    turns = [user("q"), assistant("a")]
    for format, row in [
        ("messages", {"messages": turns}),
        ("sharegpt", {"conversations": [said("human", "q"), said("gpt", "a")]}),
        ("alpaca", {"instruction": "q", "output": "a"}),
        ("prompt_completion", {"prompt": "q", "completion": "a"}),
        ("question_answer", {"question": "q", "answer": "a"}),
    ]:
        for column in ("system", "system_prompt"):
            found = to_conversation({**row, column: " Be kind."}, format)
            assert found.messages == [system(" Be kind."), *turns]
            assert column in found.consumed and found.kept_aside == []
        found = to_conversation({**row, "system": " ", "system_prompt": None}, format)
        assert (found.messages, found.kept_aside) == (turns, [])


def test_of_two_system_messages_the_conversations_own_counts():
    turns = [system("mine"), user("q"), assistant("a")]
    for beside, aside in [
        ({"system": "other"}, ["system"]),
        ({"system": "mine"}, []),
        ({"system_prompt": 3}, ["system_prompt"]),
    ]:
        found = to_conversation({"messages": turns, **beside}, "messages")
        assert (found.messages, found.kept_aside) == (turns, aside)
        assert set(beside) - set(found.consumed) == set(aside)
    both = to_conversation({"messages": turns[1:], "system": "one", "system_prompt": "two"}, "messages")
    assert (both.messages[0], both.kept_aside) == (system("one"), ["system_prompt"])
    emptied = to_conversation({"messages": [system(None), *turns[1:]], "system": "one"}, "messages")
    assert (emptied.messages[0], emptied.num_left_out) == (system("one"), 1)


def test_history_comes_before_the_turn_of_its_row():
    row = {"instruction": "And now?", "input": "", "output": "c", "history": [["q", "a"], ["r", "b"]], "system": "s"}
    expected = [system("s"), user("q"), assistant("a"), user("r"), assistant("b"), user("And now?"), assistant("c")]
    found = to_conversation(row, "alpaca")
    assert found.messages == expected
    assert set(found.consumed) >= set(row)
    for empty in (None, []):
        assert to_messages({**row, "history": empty, "system": None}, "alpaca") == expected[-2:]


def test_input_and_context_follow_the_instruction():
    row = {"instruction": "Do", "input": "x", "context": "y", "output": "ok", "response": "ok"}
    for format in ("alpaca", "instruction_response"):
        assert to_messages(row, format)[0] == user("Do\n\nx\n\ny")
    assert to_messages({"question": "Who?", "context": "A story.", "answer": "He"}, "question_answer") == [
        user("Who?\n\nA story."),
        assistant("He"),
    ]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([CALL], [CALL]),
        ('[{"name": "f"}]', [{"name": "f"}]),
        ("[]", None),
        ("", None),
        ("null", None),
        ([], None),
        (None, None),
    ],
)
def test_the_schemas_of_tools(tools, expected):
    found = to_conversation({"messages": [user("q"), assistant("a")], "tools": tools}, "messages")
    assert found.tools == expected
    assert "tools" in found.consumed


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
