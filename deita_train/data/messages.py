"""The messages of a conversation: what is read of one, under which keys, and when it cannot be used."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from deita_train.data.plain_values import as_json, is_unicode_text

Message = dict[str, Any]
"""``role`` and ``content``, a text, then the further fields that the row gives the message and that say something."""

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
TRAINED_FIELDS = ("weight", "train", "trainable")
KNOWN_FIELDS = frozenset(("role", "content", *REASONING_FIELDS, *TRAINED_FIELDS, "tool_calls", "tool_call_id", "name"))
"""The fields of messages that have a meaning here or in chat templates; a message keeps all others as well."""

TEXT_KEYS = ("content", "value", "text")
CALL_SPEAKER = "function_call"
"""In ShareGPT's style a speaker whose text is a tool call in JSON; `roles` may give it another meaning."""

_CALL_FIELDS = ("tool_calls", "function_call")
_MAY_BE_EMPTY = frozenset((*REASONING_FIELDS, *_CALL_FIELDS, "tool_call_id", "name"))
"""The fields that libraries write empty where a message has none of the kind."""

_TEXT_PARTS = ("text", "input_text", "output_text")
_SAID_BY = {"role": ("role", "from"), "from": ("from", "role")}
_TEXT_OF = {"role": TEXT_KEYS, "from": ("value", "content", "text")}


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


class Reading(NamedTuple):
    """The messages in one column, and how many system messages without text were left out of them."""

    messages: list[Message]
    num_left_out: int = 0


class _Found(NamedTuple):
    """A message as it stands in the row: its number from 1, its speaker and text, unchecked, and its other fields."""

    number: int
    speaker: Any
    text: Any
    fields: dict[str, Any]


def read_messages(
    value: Any, roles: Mapping[str, str], column: str, *, speaker_key: str = "role", names_column: bool = False
) -> Reading:
    """The messages in a column, in order, under whichever of the known keys they stand.

    A message is an object with a speaker under ``role`` or ``from`` and a text under ``content``, ``value`` or
    ``text``: a string, or a list of text parts, which are joined. Texts are not stripped.

    Args:
        value: of the column.
        roles: the role of each speaker, keys in lower case, as ``conversations.merge_roles`` gives them.
        column: its name, for messages.
        speaker_key: ``role`` or ``from``: the one that counts where a message has both.
        names_column: whether each detail names the column.

    Raises:
        UnusableRow: if ``value`` is not a list of objects or is empty, or for the first reason that fits a message.
    """
    if not isinstance(value, list):
        raise UnusableRow("missing_conversation", f"column {column!r} is {type(value).__name__}, not a list")
    if not value:
        raise UnusableRow("missing_conversation", f"column {column!r} is an empty list")
    plain = _plain_messages(value, roles, speaker_key)
    if plain is not None:
        return Reading(plain)
    found = [_found(message, number, column, speaker_key) for number, message in enumerate(value, start=1)]
    return _checked(found, roles, f"column {column!r}, message" if names_column else "message")


def read_texts(
    texts: Sequence[tuple[str, Any]], roles: Mapping[str, str], column: str | None = None, *, first_number: int = 1
) -> list[Message]:
    """Messages from (speaker, text) pairs, checked as ``read_messages`` does."""
    plain = [{"role": roles[speaker], "content": text} for speaker, text in texts if _is_plain(text)]
    if len(plain) == len(texts):
        return plain
    found = [_Found(number, speaker, text, {}) for number, (speaker, text) in enumerate(texts, start=first_number)]
    return _checked(found, roles, "message" if column is None else f"column {column!r}, message").messages


def _plain_messages(items: list[Any], roles: Mapping[str, str], speaker_key: str) -> list[Message] | None:
    """The messages if each has a known speaker, a text and nothing else, as most conversations have; else None."""
    first = items[0]
    if type(first) is not dict:
        return None
    if speaker_key not in first:
        speaker_key = _SAID_BY[speaker_key][1]
    text_key = _TEXT_OF[speaker_key][0]
    messages: list[Message] = []
    for item in items:
        if type(item) is not dict or len(item) != 2:
            return None
        speaker, text = item.get(speaker_key), item.get(text_key)
        if type(speaker) is not str or not _is_plain(text):
            return None
        role = roles.get(speaker) or roles.get(speaker.lower())
        if role is None:
            return None
        messages.append({"role": role, "content": text})
    return messages


def _is_plain(text: Any) -> bool:
    """Whether a message's text is nothing to look at further: a string with more than white space."""
    return type(text) is str and not text.isspace() and text != "" and (text.isascii() or is_unicode_text(text))


def _found(message: Any, number: int, column: str, speaker_key: str) -> _Found:
    """A message's speaker and text under the first keys that hold something, and its other fields that do."""
    if not isinstance(message, dict):
        kind = type(message).__name__
        raise UnusableRow("missing_conversation", f"column {column!r}, message {number} is {kind}, not an object")
    fields = {
        name: value
        for name, value in message.items()
        if value is not None and not (name in _MAY_BE_EMPTY and _is_empty(name, value))
    }
    key = next((name for name in _SAID_BY[speaker_key] if name in fields), speaker_key)
    speaker = fields.pop(key, None)
    text_key = next((name for name in _TEXT_OF[key] if name in fields), None)
    text = None if text_key is None else fields.pop(text_key)
    fields.pop("role", None)  # of a message that names its speaker twice
    if fields.pop("content", text) != text:
        raise UnusableRow("not_text", f"column {column!r}, message {number} has two texts, {text_key} and content")
    return _Found(number, speaker, text, fields)


def _is_empty(name: str, value: Any) -> bool:
    if name in _CALL_FIELDS:
        value = _read_json(value)
    return not value.strip() if isinstance(value, str) else value in (None, [], {})


def _checked(found: Sequence[_Found], roles: Mapping[str, str], place: str) -> Reading:
    """The messages; one check after the other goes over all of them, so that the first reason that fits is given."""
    unknown = [message for message in found if not _is_known(message.speaker, roles)]
    if unknown:
        raise _unknown_role(unknown, place)
    calls = [_with_call(message, roles, place) for message in found]
    texts = [_text(message, roles, place) for message in calls]
    for message in calls:
        _check_weight(message, place)
    messages: list[Message] = []
    for message, text in zip(calls, texts, strict=True):
        role = _role(message.speaker, roles)
        if not text.strip() and role == "system":
            continue
        if not text.strip() and role != "tool" and not _has_more(role, message.fields):
            raise UnusableRow("empty_message", f"{place} {message.number} ({message.speaker}) is {text[:20]!r}")
        messages.append({"role": role, "content": text, **_finite(message.fields)})
    return Reading(messages, len(found) - len(messages))


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not nan or infinity: of these a table would hold null, and a null is no field."""
    return {name: value for name, value in fields.items() if type(value) is not float or math.isfinite(value)}


def _unknown_role(messages: Sequence[_Found], place: str) -> UnusableRow:
    """The refusal of messages whose speakers have no role, with the speakers that could be given one."""
    first = messages[0]
    detail = f"{place} {first.number} has the role {first.speaker!r:.40}"
    if first.speaker is None:
        detail += _keys_in_words(first, "role or from")
    # A speaker that is not Unicode text is counted under its literal.
    names = [message.speaker if _is_unicode(message.speaker) else repr(message.speaker) for message in messages]
    present = [name for name, message in zip(names, messages, strict=True) if message.speaker is not None]
    return UnusableRow("unknown_role", detail, tuple(dict.fromkeys(present)))


def _is_unicode(speaker: Any) -> bool:
    return isinstance(speaker, str) and is_unicode_text(speaker)


def _keys_in_words(message: _Found, read: str) -> str:
    """Where nothing is read of a message, what it has and what is read."""
    keys = ", ".join(map(repr, message.fields))
    return f" (keys that are read: {read}; it has {keys})" if keys else ""


def _is_known(speaker: Any, roles: Mapping[str, str]) -> bool:
    return isinstance(speaker, str) and (speaker.lower() in roles or speaker.lower() == CALL_SPEAKER)


def _role(speaker: str, roles: Mapping[str, str]) -> str:
    return roles.get(speaker.lower(), "assistant")  # without a role of its own, it is the speaker of calls


def _with_call(message: _Found, roles: Mapping[str, str], place: str) -> _Found:
    """A message with its tool calls as a list; also those in the style of ShareGPT, and in OpenAI's former one."""
    speaker, fields, where = message.speaker.lower(), message.fields, f"{place} {message.number}"
    if speaker == CALL_SPEAKER and CALL_SPEAKER not in roles:
        return message._replace(text="", fields={**fields, "tool_calls": _calls(message.text, where)})
    if "tool_calls" in fields:
        return message._replace(fields={**fields, "tool_calls": _tool_calls(fields["tool_calls"], where)})
    if roles[speaker] == "assistant" and "function_call" in fields:
        others = {name: value for name, value in fields.items() if name != "function_call"}
        return message._replace(fields={**others, "tool_calls": _calls(fields["function_call"], where)})
    return message


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """One call or several, as objects or their JSON text, in the shape of ``tool_calls``."""
    value = _read_json(value)
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and ("name" in call or "function" in call) for call in calls):
        raise UnusableRow("bad_tool_calls", f"{where} is a function call, but not in JSON with a name and arguments")
    return [call if "function" in call else {"type": "function", "function": call} for call in calls]


def _read_json(value: Any) -> Any:
    """The value of a JSON text; anything else, and a text that is not JSON, as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _text(message: _Found, roles: Mapping[str, str], place: str) -> str:
    """The text of a message, its parts joined; "" for null where a message may be without text."""
    text, where, role = message.text, f"{place} {message.number}", _role(message.speaker, roles)
    if isinstance(text, list):
        text = "".join(_part(part, where) for part in text)
    if text is None and (role in ("system", "tool") or _has_more(role, message.fields)):
        return ""
    if not isinstance(text, str):
        keys = _keys_in_words(message, "content, value or text") if text is None else ""
        raise UnusableRow("not_text", f"{where} holds {_describe(text)}, not a string{keys}")
    if not is_unicode_text(text):
        raise UnusableRow("not_text", f"{where} holds a lone surrogate, which is not Unicode text")
    for name, value in message.fields.items():
        check_storable(name, f"the name of field {name!r} of {where}")
        check_storable(value, f"{where}, field {name!r}")
    return text


def _part(part: Any, where: str) -> str:
    """The text of one part of a message's content."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise UnusableRow("not_text", f"{where} holds a list with {_describe(part)}, not with parts of text")
    kind = part.get("type")
    if kind is not None and kind not in _TEXT_PARTS:
        raise UnusableRow("not_text", f"{where} holds a part of the type {str(kind)[:40]!r}, not only text")
    if not isinstance(part.get("text"), str):
        raise UnusableRow("not_text", f"{where} holds a part whose text is {_describe(part.get('text'))}")
    text: str = part["text"]
    return text


def _has_more(role: str, fields: Mapping[str, Any]) -> bool:
    """Whether a message says something without a text: the assistant's tool calls or reasoning."""
    if role != "assistant":
        return False
    return bool(fields.get("tool_calls")) or bool(reasoning(fields))


def reasoning(message: Mapping[str, Any]) -> str:
    """The reasoning that precedes a message; "" for none."""
    texts = (message.get(name) for name in REASONING_FIELDS)
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


def _check_weight(message: _Found, place: str) -> None:
    for name in TRAINED_FIELDS:
        value = message.fields.get(name, 1)
        if not isinstance(value, int | float) or value not in (0, 1):
            raise UnusableRow("bad_weight", f"{place} {message.number} has a {name} other than 0, 1, true and false")


def _tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    calls = _read_json(value)
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise UnusableRow("bad_tool_calls", f"{where} has tool_calls that are not a list of objects")
    return calls


def check_storable(value: Any, where: str) -> None:
    """Refuse what a table cannot hold as JSON.

    Raises:
        UnusableRow: ``not_text``, for a lone surrogate or something other than the values of JSON, such as bytes.
    """
    if type(value) in (int, float, bool):
        return
    try:
        text = value if isinstance(value, str) else as_json(value)
    except (TypeError, RecursionError) as error:
        raise UnusableRow("not_text", f"{where} holds a value that JSON cannot write ({error})") from None
    if not is_unicode_text(text):
        raise UnusableRow("not_text", f"{where} holds a lone surrogate, which is not Unicode text")


def _describe(value: Any) -> str:
    return "null" if value is None else type(value).__name__
