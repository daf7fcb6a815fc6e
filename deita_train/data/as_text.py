"""Conversations as plain text, for what knows no tools, no reasoning and no system message after the first.

The rules: reasoning stands in ``<think>``, a tool's call in ``<tool_call>``, its result in ``<tool_response>``, and the
schemas of tools in ``<tools>``, as Qwen's and Hermes' templates write them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from deita_train.data.messages import TRAINED_FIELDS, Message, reasoning


def message_text(message: Message) -> str:
    """All that a message says: its reasoning, its text, then its tool calls; a tool's result between marks.

    For a message with nothing but a text, that text.
    """
    if message["role"] == "tool":
        return f"<tool_response>\n{message['content']}\n</tool_response>"
    if len(message) == 2 or message["role"] != "assistant":
        text: str = message["content"]
        return text
    thought = reasoning(message)
    calls = [_call_text(call) for call in message.get("tool_calls") or ()]
    said = "\n".join([message["content"], *calls] if message["content"] else calls)
    return f"<think>\n{thought}\n</think>\n\n{said}" if thought else said


def conversation_as_text(messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[Message]:
    """The same conversation for a template that knows a system message at the beginning, user and assistant in turn.

    The assistant's messages keep their number and order. A tool's results are the user's next message, or its
    beginning. A later system message belongs to the user's message beside it, the one before it if there are two. The
    schemas of tools end the system message.

    Args:
        messages: of the conversation.
        tools: the schemas of its tools.

    Returns:
        Messages with ``role`` and ``content``, and what says that one is not to be trained.
    """
    first = next((place for place, message in enumerate(messages) if message["role"] != "system"), len(messages))
    preamble = [message["content"] for message in messages[:first]]
    if tools:
        preamble.append("\n".join(["<tools>", *map(_json, tools), "</tools>"]))
    found = [{"role": "system", "content": "\n\n".join(preamble)}] if preamble else []
    for message in messages[first:]:
        role = "assistant" if message["role"] == "assistant" else "user"
        if role == "user" and found and found[-1]["role"] == "user":
            between = "\n" if message["role"] == "tool" else "\n\n"
            found[-1]["content"] += between + message_text(message)
        else:
            kept = {name: message[name] for name in TRAINED_FIELDS if name in message}
            found.append({"role": role, "content": message_text(message), **kept})
    return found


def _call_text(call: Mapping[str, Any]) -> str:
    """A call between its marks: of a function its name and its arguments, which may have been JSON text."""
    function = call.get("function", call)
    if isinstance(function, Mapping) and "name" in function:
        call = {"name": function["name"], "arguments": _arguments(function.get("arguments"))}
    return f"<tool_call>\n{_json(call)}\n</tool_call>"


def _arguments(value: Any) -> Any:
    if value is None:
        return {}
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
