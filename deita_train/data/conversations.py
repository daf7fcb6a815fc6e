"""Row formats of instruction data, read into conversations: messages, and the schemas of tools."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from deita_train.data.as_text import message_text
from deita_train.data.formats import ConversationFormat
from deita_train.data.messages import (
    TRAINED_FIELDS,
    Message,
    Reading,
    UnusableRow,
    check_storable,
    read_messages,
    read_texts,
)
from deita_train.errors import UserError

FORMATS: tuple[ConversationFormat, ...] = get_args(ConversationFormat)

FORMAT_COLUMNS: Mapping[ConversationFormat, tuple[str, ...]] = MappingProxyType(
    {
        "messages": ("messages",),
        "sharegpt": ("conversations",),
        "alpaca": ("instruction", "input", "output"),
        "prompt_completion": ("prompt", "completion"),
        "instruction_response": ("instruction", "context", "response"),
        "question_answer": ("question", "context", "answer"),
        "query_response": ("query", "context", "response"),
    }
)
"""The columns that each format turns into messages, in the order in which a row is tried for them.

``messages`` is the first, because a table of ours has that column beside whatever columns its rows had of their own.
"""

_OPTIONAL_COLUMNS = ("input", "context")

ASKED: Mapping[ConversationFormat, tuple[str, ...]] = MappingProxyType(
    {
        "alpaca": ("instruction", "input", "context"),
        "instruction_response": ("instruction", "input", "context"),
        "question_answer": ("question", "context"),
        "query_response": ("query", "context"),
    }
)
"""Of the formats with one exchange in columns: those of the user's message, which has the later ones after it."""

_ANSWER: Mapping[ConversationFormat, str] = MappingProxyType(
    {"alpaca": "output", "instruction_response": "response", "question_answer": "answer", "query_response": "response"}
)
SYSTEM_COLUMNS = ("system", "system_prompt")

_CONSUMED: Mapping[ConversationFormat, tuple[str, ...]] = MappingProxyType(
    {
        name: (*((*ASKED[name], _ANSWER[name], "history") if name in ASKED else columns), "tools")
        for name, columns in FORMAT_COLUMNS.items()
    }
)

ROLES = ("system", "user", "assistant", "tool")

DEFAULT_ROLES: Mapping[str, str] = MappingProxyType(
    {
        "human": "user",
        "user": "user",
        "prompter": "user",
        "gpt": "assistant",
        "bot": "assistant",
        "chatgpt": "assistant",
        "bing": "assistant",
        "bard": "assistant",
        "assistant": "assistant",
        "model": "assistant",
        "system": "system",
        "developer": "system",
        "tool": "tool",
        "observation": "tool",
        "function": "tool",
    }
)
"""Speaker names in published data, in lower case, and their roles."""

DropReason = Literal[
    "missing_conversation",  # a column of the format is absent, null, not a list of objects, or empty
    "unknown_role",  # a speaker is missing or not among the roles
    "bad_tool_calls",  # tool calls are not a list of objects, nor JSON text of them
    "not_text",  # a text is missing, not a string (an image, say), or not Unicode: it holds a lone surrogate
    "bad_weight",  # a message's weight, train or trainable is not 0, 1, true or false
    "empty_message",  # a message holds nothing but whitespace
    "no_user_turn",  # nobody asks
    "no_assistant_turn",  # nobody answers
    "roles_do_not_alternate",  # two user or two assistant messages in a row
    "tool_result_without_call",  # a tool speaks where no message of the assistant precedes it
    "bad_tools",  # the column `tools` is not a list of objects, nor JSON text of one
]
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)
"""Why a row is not used; if several apply, the first in this order."""


class Conversation(NamedTuple):
    """What a row says.

    Attributes:
        messages: its messages in order.
        tools: the schemas of the tools that the assistant may call; None for none.
        consumed: the columns that are part of it.
        kept_aside: columns that could have been part of it, but are not: a second system message.
        num_left_out: system messages that were left out because they have no text.
    """

    messages: list[Message]
    tools: list[Any] | None
    consumed: Sequence[str]
    kept_aside: Sequence[str] = ()
    num_left_out: int = 0


def merge_roles(additional: Mapping[str, str]) -> dict[str, str]:
    """``DEFAULT_ROLES`` overridden by ``additional`` speakers; speakers are compared in lower case.

    Raises:
        UserError: if a speaker is mapped to anything but one of ``ROLES``.
    """
    for speaker, role in additional.items():
        if role not in ROLES:
            raise UserError(f"roles: {speaker!r} is mapped to {role!r}; allowed are {', '.join(ROLES)}")
    return {**DEFAULT_ROLES, **{speaker.lower(): role for speaker, role in additional.items()}}


def is_trained(message: Message) -> bool:
    """Whether a message may be trained on: not if it is the assistant's with weight 0, train or trainable false."""
    return message["role"] != "assistant" or all(message.get(name, 1) for name in TRAINED_FIELDS)


def require_format(name: str) -> ConversationFormat:
    """``name`` as a ``ConversationFormat``.

    Raises:
        UserError: if there is no such format.
    """
    for known in FORMATS:
        if name == known:
            return known
    raise UserError(f"format {name!r} is unknown; allowed are {', '.join(FORMATS)}")


def detect_format(row: Mapping[str, Any], *, needs_answer: bool = True) -> ConversationFormat:
    """The first of ``FORMAT_COLUMNS`` whose columns ``row`` has (``input`` and ``context`` may be absent).

    Args:
        row: the raw row.
        needs_answer: whether the column of the answer must be there; without, a format with it still comes first.

    Raises:
        UserError: listing the row's columns, if it has those of no format.
    """
    for name, columns in FORMAT_COLUMNS.items():
        if all(column in row or column in _OPTIONAL_COLUMNS for column in columns):
            return name
    if not needs_answer:
        for name, columns in FORMAT_COLUMNS.items():
            if columns[0] in row:
                return name
    known = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in FORMAT_COLUMNS.items())
    raise UserError(
        f"the columns {', '.join(map(repr, row)) or '(none)'} fit no known format ({known};"
        " 'input' and 'context' may be absent); rename the columns, or convert the data"
    )


def to_messages(row: Mapping[str, Any], format: str, roles: Mapping[str, str] = DEFAULT_ROLES) -> list[Message]:
    """The messages of ``to_conversation``."""
    return to_conversation(row, format, roles).messages


def to_conversation(
    row: Mapping[str, Any], format: str, roles: Mapping[str, str] = DEFAULT_ROLES, *, needs_answer: bool = True
) -> Conversation:
    """The conversation of one row. Texts are not stripped.

    A leading assistant message and a trailing user message are kept, although neither forms a scored pair. In a format
    with one exchange in columns, an input or context follows the instruction after a blank line, and earlier exchanges
    come from the column ``history``. A system message may come from a column, the schemas of tools from ``tools``.

    Args:
        row: the raw row.
        format: one of ``FORMATS``.
        roles: the role of each speaker, keys in lower case, as ``merge_roles`` gives them.
        needs_answer: whether a row in which nobody answers, or whose column for it is empty, is unusable.

    Raises:
        UnusableRow: if the row cannot be used.
        UserError: if the format is unknown.
    """
    known = require_format(format)
    if known in ASKED:
        is_asked_alone = not needs_answer and _is_blank(row.get(_ANSWER[known]))
        reading = Reading(exchange(row, ASKED[known], None if is_asked_alone else _ANSWER[known]))
    elif known == "prompt_completion":
        is_asked_alone = not needs_answer and _is_blank(row.get("completion"))
        reading = _prompt_completion(row, roles, ("prompt",) if is_asked_alone else ("prompt", "completion"))
    else:
        column = FORMAT_COLUMNS[known][0]
        speaker_key = "from" if known == "sharegpt" else "role"
        reading = read_messages(require_column(row, column), roles, column, speaker_key=speaker_key)
    check_order([message["role"] for message in reading.messages], needs_answer=needs_answer)
    return with_sides(row, reading, _CONSUMED[known])


def _is_blank(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def with_sides(row: Mapping[str, Any], reading: Reading, consumed: Sequence[str]) -> Conversation:
    """The messages of a row with what stands beside them: a system message, the schemas of tools.

    A system message in a column counts if there is none among the messages; if there is another, it stays a column.

    Args:
        row: the raw row.
        reading: its messages.
        consumed: the columns that they come from.

    Raises:
        UnusableRow: ``bad_tools``, or ``not_text`` for a lone surrogate.
    """
    messages, num_left_out = reading
    if not ("tools" in row or "system" in row or "system_prompt" in row):
        return Conversation(messages, None, consumed, (), num_left_out)
    aside = []
    for column in SYSTEM_COLUMNS:
        text = row.get(column)
        if text is None or (isinstance(text, str) and not text.strip()):
            continue
        own = [message["content"] for message in messages if message["role"] == "system"]
        if not isinstance(text, str) or (own and text not in own):
            aside.append(column)
        elif not own:
            messages = [*read_texts([("system", text)], DEFAULT_ROLES, column), *messages]
    of_sides = [column for column in SYSTEM_COLUMNS if column not in aside]
    return Conversation(messages, _tools(row.get("tools")), (*consumed, *of_sides), aside, num_left_out)


def user_turns(messages: Sequence[Message]) -> list[tuple[str, str | None]]:
    """(instruction, response) for every user message.

    The response is what the assistant and its tools say up to the next user message, as ``message_text`` writes it, or
    None if the assistant says nothing. Turns are paired by role, not by position, so a leading system or assistant
    message shifts nothing.
    """
    turns: list[tuple[str, list[Message]]] = []
    for message in messages:
        if message["role"] == "user":
            turns.append((message["content"], []))
        elif turns and message["role"] != "system":
            turns[-1][1].append(message)
    return [(instruction, _response(answers)) for instruction, answers in turns]


def _response(messages: Sequence[Message]) -> str | None:
    if not any(message["role"] == "assistant" for message in messages):
        return None
    return "\n".join(map(message_text, messages))


def require_column(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column that a format reads.

    Raises:
        UnusableRow: if it is absent or null.
    """
    if row.get(column) is not None:
        return row[column]
    found = "is null" if column in row else f"is absent; the row has {', '.join(map(repr, row)) or 'no columns'}"
    raise UnusableRow("missing_conversation", f"column {column!r} {found}")


def exchange(row: Mapping[str, Any], asked: Sequence[str], answer: str | None) -> list[Message]:
    """The exchanges in ``history``, then the user's message from the columns ``asked`` and the answer if one is named.

    Raises:
        UnusableRow: if a column is missing or not text, or ``history`` is not a list of pairs.
    """
    texts = [("user", _asked_text(row, asked))]
    if answer is not None:
        texts.append(("assistant", require_column(row, answer)))
    if row.get("history"):
        texts = [*_history(row["history"]), *texts]
    return read_texts(texts, DEFAULT_ROLES)


def _asked_text(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """The text of the first column, with those of the others after it where they have one."""
    instruction = require_column(row, columns[0])
    if not isinstance(instruction, str):
        raise UnusableRow("not_text", f"column {columns[0]!r} is {type(instruction).__name__}, not a string")
    # A blank instruction stays blank, to be dropped: joined with an input it would look like text.
    is_blank = not instruction.strip()
    for column in columns[1:]:
        more = row.get(column)
        if more is None:
            continue
        if not isinstance(more, str):
            raise UnusableRow("not_text", f"column {column!r} is {type(more).__name__}, not a string")
        if not is_blank and more.strip():
            instruction = f"{instruction}\n\n{more}"
    return instruction


def _history(history: Any) -> list[tuple[str, Any]]:
    """The speakers and texts of earlier exchanges, which stand as [instruction, response] pairs."""
    if not isinstance(history, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise UnusableRow("missing_conversation", "column 'history' is not a list of [instruction, response] pairs")
    return [pair for asked, answered in history for pair in (("user", asked), ("assistant", answered))]


_SPEAKERS = {"prompt": "user", "completion": "assistant"}


def _prompt_completion(row: Mapping[str, Any], roles: Mapping[str, str], columns: Sequence[str]) -> Reading:
    messages: list[Message] = []
    num_left_out = 0
    for column in columns:
        role = _SPEAKERS[column]
        value = require_column(row, column)
        if isinstance(value, list):
            reading = read_messages(value, roles, column, names_column=True)
            messages += reading.messages
            num_left_out += reading.num_left_out
        else:
            messages += read_texts([(role, value)], DEFAULT_ROLES, first_number=len(messages) + 1)
    return Reading(messages, num_left_out)


def _tools(value: Any) -> list[Any] | None:
    """The schemas of tools: a list of objects or its JSON text; None for none."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise UnusableRow(
                "bad_tools", "column 'tools' is text, but not JSON; rename it if it does not hold schemas"
            ) from None
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise UnusableRow("bad_tools", "column 'tools' is not a list of objects; rename it if it does not hold schemas")
    check_storable(value, "column 'tools'")
    return value


def check_order(roles: Sequence[str], *, needs_answer: bool = True) -> None:
    """Refuse a missing user or (if one is needed) assistant, one of them twice in a row, and a tool that nobody called.

    System messages may stand anywhere. Results of tools stand between a message of the assistant and its next one.

    Raises:
        UnusableRow: for the first of ``DROP_REASONS`` that fits.
    """
    if "user" not in roles:
        raise UnusableRow("no_user_turn", f"the roles are {', '.join(roles) or '(none)'}")
    if needs_answer and "assistant" not in roles:
        raise UnusableRow("no_assistant_turn", f"the roles are {', '.join(roles)}")
    before, place = "", 0
    for number, role in enumerate(roles, start=1):
        if role == "system":
            continue
        if role == before and role != "tool":
            raise UnusableRow("roles_do_not_alternate", f"messages {place} and {number} are both {role}")
        if role == "tool" and before not in ("assistant", "tool"):
            raise UnusableRow("tool_result_without_call", f"message {number} is a tool's, with no assistant before it")
        before, place = role, number
