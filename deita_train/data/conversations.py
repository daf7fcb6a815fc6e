"""Row formats of instruction data, read into lists of messages."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, get_args

from deita_train.errors import UserError

Format = Literal["sharegpt", "messages", "alpaca", "prompt_completion"]
FORMATS: tuple[Format, ...] = get_args(Format)

FORMAT_COLUMNS: Mapping[Format, tuple[str, ...]] = MappingProxyType(
    {
        "sharegpt": ("conversations",),
        "messages": ("messages",),
        "alpaca": ("instruction", "input", "output"),
        "prompt_completion": ("prompt", "completion"),
    }
)
"""The columns that each format turns into messages."""

_OPTIONAL_COLUMNS = ("input",)

ROLES = ("system", "user", "assistant")

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
    }
)
"""Speaker names in published data, in lower case, and their roles."""

DropReason = Literal[
    "missing_conversation",  # a column of the format is absent, null or no list of objects, or the list is empty
    "unknown_role",  # a speaker is missing or not among the roles
    "not_text",  # a message's text is missing, not a string, or holds a lone surrogate, which is no Unicode text
    "empty_message",  # a message holds nothing but whitespace
    "system_not_first",  # a system message after the first place
    "no_user_turn",  # nobody asks
    "no_assistant_turn",  # nobody answers
    "roles_do_not_alternate",  # two user or two assistant messages in a row
]
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)
"""Why a row is not used; if several apply, the first in this order."""

_MESSAGE_KEYS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {"sharegpt": (("from", "value"), ("role", "content")), "messages": (("role", "content"),)}
)

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""


class UnusableRow(Exception):
    """A row that cannot be used.

    Attributes:
        reason: one of ``DROP_REASONS``, or of ``data.preferences.PAIR_DROP_REASONS``.
        detail: what was found.
        unknown_roles: the distinct speakers without a known role, in order of appearance.
    """

    def __init__(self, reason: str, detail: str, unknown_roles: Sequence[str] = ()) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.unknown_roles = tuple(unknown_roles)


def merge_roles(additional: Mapping[str, str]) -> dict[str, str]:
    """``DEFAULT_ROLES`` overridden by ``additional`` speakers; speakers are compared in lower case.

    Raises:
        UserError: if a speaker is mapped to anything but system, user or assistant.
    """
    for speaker, role in additional.items():
        if role not in ROLES:
            raise UserError(f"roles: {speaker!r} is mapped to {role!r}; allowed are {', '.join(ROLES)}")
    return {**DEFAULT_ROLES, **{speaker.lower(): role for speaker, role in additional.items()}}


def require_format(name: str) -> Format:
    """``name`` as a ``Format``.

    Raises:
        UserError: if there is no such format.
    """
    for known in FORMATS:
        if name == known:
            return known
    raise UserError(f"format {name!r} is unknown; allowed are {', '.join(FORMATS)}")


def detect_format(row: Mapping[str, Any]) -> Format:
    """The first of ``FORMATS`` whose columns ``row`` has (``input`` may be absent).

    Raises:
        UserError: listing the row's columns, if it has those of no format.
    """
    for name, columns in FORMAT_COLUMNS.items():
        if all(column in row or column in _OPTIONAL_COLUMNS for column in columns):
            return name
    known = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in FORMAT_COLUMNS.items())
    raise UserError(
        f"the columns {', '.join(map(repr, row)) or '(none)'} fit no known format ({known}; 'input' may be absent);"
        " rename the columns, or convert the data"
    )


def to_messages(row: Mapping[str, Any], format: str, roles: Mapping[str, str] = DEFAULT_ROLES) -> list[Message]:
    """The conversation of one row. Texts are not stripped.

    One leading system message is allowed. A leading assistant message and a trailing user message are kept, although
    neither forms a scored pair. An Alpaca row with an input becomes instruction, blank line, input.

    Args:
        row: the raw row.
        format: one of ``FORMATS``.
        roles: the role of each speaker, keys in lower case, as ``merge_roles`` gives them.

    Raises:
        UnusableRow: if the row cannot be used.
        UserError: if the format is unknown.
    """
    known = require_format(format)
    if known == "alpaca":
        pairs = _alpaca_pairs(row)
    elif known == "prompt_completion":
        pairs = _side_pairs(row, "prompt", "user") + _side_pairs(row, "completion", "assistant")
    else:
        column = FORMAT_COLUMNS[known][0]
        pairs = speaker_texts(require_column(row, column), column, known)
    messages = checked_messages(pairs, roles)
    check_order([message["role"] for message in messages])
    return messages


def user_turns(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str | None]]:
    """(instruction, response) for every user message.

    The response is the assistant message that directly follows, or None (a trailing user turn). Turns are paired by
    role, not by position, so a leading system or assistant message shifts nothing.
    """
    following = [*messages[1:], None]
    return [
        (message["content"], answer["content"] if answer is not None and answer["role"] == "assistant" else None)
        for message, answer in zip(messages, following, strict=True)
        if message["role"] == "user"
    ]


def require_column(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column that a format reads.

    Raises:
        UnusableRow: if it is absent or null.
    """
    if row.get(column) is not None:
        return row[column]
    found = "is null" if column in row else f"is absent; the row has {', '.join(map(repr, row)) or 'no columns'}"
    raise UnusableRow("missing_conversation", f"column {column!r} {found}")


def _alpaca_pairs(row: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    instruction = require_column(row, "instruction")
    output = require_column(row, "output")
    context = row.get("input")
    for column, value in (("instruction", instruction), ("input", context)):
        if value is not None and not isinstance(value, str):
            raise UnusableRow("not_text", f"column {column!r} is {type(value).__name__}, not a string")
    # A blank instruction stays blank, to be dropped: joined with an input it would look like text.
    if instruction.strip() and context is not None and context.strip():
        instruction = f"{instruction}\n\n{context}"
    return [("user", instruction), ("assistant", output)]


def _side_pairs(row: Mapping[str, Any], column: str, role: str) -> list[tuple[Any, Any]]:
    value = require_column(row, column)
    return speaker_texts(value, column, "messages") if isinstance(value, list) else [(role, value)]


def speaker_texts(value: Any, column: str, format: Format) -> list[tuple[Any, Any]]:
    """(speaker, text) of each message in a column, unchecked, under the keys that ``format`` knows.

    Raises:
        UnusableRow: if ``value`` is no list of objects, or empty.
    """
    if not isinstance(value, list):
        raise UnusableRow("missing_conversation", f"column {column!r} is {type(value).__name__}, not a list")
    if not value:
        raise UnusableRow("missing_conversation", f"column {column!r} is an empty list")
    return [_message_pair(message, number, column, format) for number, message in enumerate(value, start=1)]


def _message_pair(message: Any, number: int, column: str, format: Format) -> tuple[Any, Any]:
    """(speaker, text) under whichever of the format's key pairs names a speaker."""
    if not isinstance(message, dict):
        kind = type(message).__name__
        raise UnusableRow("missing_conversation", f"column {column!r}, message {number} is {kind}, not an object")
    keys = _MESSAGE_KEYS[format]
    role_key, text_key = next((pair for pair in keys if message.get(pair[0]) is not None), keys[0])
    return message.get(role_key), message.get(text_key)


def checked_messages(
    pairs: Sequence[tuple[Any, Any]], roles: Mapping[str, str], column: str | None = None
) -> list[Message]:
    """(speaker, text) pairs as messages; every speaker must be known and every text present.

    Raises:
        UnusableRow: for the first of ``DROP_REASONS`` that fits.
    """
    place = "message" if column is None else f"column {column!r}, message"
    unknown = [(number, speaker) for number, (speaker, _) in enumerate(pairs, start=1) if not _is_known(speaker, roles)]
    if unknown:
        number, speaker = unknown[0]
        # A speaker that is not a string (None if missing) is counted under its literal.
        names = dict.fromkeys(name if isinstance(name, str) else repr(name) for _, name in unknown)
        raise UnusableRow("unknown_role", f"{place} {number} has the role {speaker!r}", tuple(names))
    for number, (_, text) in enumerate(pairs, start=1):
        if not isinstance(text, str):
            raise UnusableRow("not_text", f"{place} {number} holds {_describe(text)}, not a string")
        if not is_unicode_text(text):
            raise UnusableRow("not_text", f"{place} {number} holds a lone surrogate, which is not Unicode text")
    for number, (speaker, text) in enumerate(pairs, start=1):
        if not text.strip():
            raise UnusableRow("empty_message", f"{place} {number} ({speaker}) is {text[:20]!r}")
    return [{"role": roles[speaker.lower()], "content": text} for speaker, text in pairs]


def _is_known(speaker: Any, roles: Mapping[str, str]) -> bool:
    return isinstance(speaker, str) and speaker.lower() in roles


def _describe(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def is_unicode_text(text: str) -> bool:
    """Whether ``text`` can be encoded as UTF-8; a lone surrogate from a broken JSON escape cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_order(roles: Sequence[str]) -> None:
    """Refuse a late system message, a missing user or assistant, and one role twice in a row.

    Raises:
        UnusableRow: for the first of ``DROP_REASONS`` that fits.
    """
    if "system" in roles[1:]:
        raise UnusableRow("system_not_first", f"message {roles.index('system', 1) + 1} is a system message")
    if "user" not in roles:
        raise UnusableRow("no_user_turn", f"the roles are {', '.join(roles)}")
    if "assistant" not in roles:
        raise UnusableRow("no_assistant_turn", f"the roles are {', '.join(roles)}")
    for number, (role, following) in enumerate(pairwise(roles), start=1):
        if role == following:
            raise UnusableRow("roles_do_not_alternate", f"messages {number} and {number + 1} are both {role}")


def is_trained(message: Mapping[str, Any]) -> bool:
    """Whether a message of the assistant is to be learned: not with `weight` 0, `train` or `trainable` false."""
    return all(bool(message.get(name, True)) for name in ("weight", "train", "trainable"))
