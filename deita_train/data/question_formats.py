"""What a row of questions says, in any of the formats in which questions are published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deita_train.data.conversations import ASKED, DEFAULT_ROLES, exchange, require_column, with_sides
from deita_train.data.messages import Message, Reading, UnusableRow, read_messages, read_texts
from deita_train.errors import UserError

QuestionFormat = Literal[
    "turns", "conversations", "messages", "prompt_list", "alpaca_eval", "instruction", "prompt", "question", "query"
]

_ASKED: Mapping[str, tuple[str, ...]] = {
    "alpaca_eval": ("instruction",),
    "instruction": ASKED["alpaca"],
    "prompt": ("prompt",),
    "question": ASKED["question_answer"],
    "query": ASKED["query_response"],
}
"""Of the formats with one question in columns: the columns of its text."""

_READ_IN_ALL = ("category", "reference", "system", "system_prompt", "tools")
_ID_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "turns": ("question_id", "id"),
    "prompt_list": ("prompt_id", "question_id", "id"),
}
_KNOWN = (
    "turns (MT-Bench's file), prompt (a text, a list of turns or of messages), instruction with output and generator "
    "(AlpacaEval), instruction, question, query, messages, conversations"
)


@dataclass(frozen=True)
class Question:
    """What a model is asked, turn by turn, each after its answer to the one before.

    Attributes:
        turns: the user's texts, at least one.
        category: such as MT-Bench's.
        references: a right answer for each turn, None where there is none; None for no reference at all.
        system: the system message before the first turn.
        baseline: another model's answer, of AlpacaEval.
        baseline_name: that model.
        subset: the part of AlpacaEval that the question is from.
    """

    turns: tuple[str, ...]
    category: str | None = None
    references: tuple[str | None, ...] | None = None
    system: str | None = None
    baseline: str | None = None
    baseline_name: str | None = None
    subset: str | None = None


def detect_question_format(row: Mapping[str, Any]) -> QuestionFormat:
    """The format of a row by its columns.

    Raises:
        UserError: listing the row's columns, if it has those of no format.
    """
    if "turns" in row:
        return "turns"
    if "messages" in row:
        return "messages"
    if "conversations" in row:
        return "conversations"
    if "prompt" in row:
        return "prompt_list" if isinstance(row["prompt"], list) else "prompt"
    if "instruction" in row:
        return "alpaca_eval" if {"output", "generator"} <= row.keys() else "instruction"
    if "question" in row:
        return "question"
    if "query" in row:
        return "query"
    raise UserError(
        f"the columns {', '.join(map(repr, row)) or '(none)'} hold no questions in a known form ({_KNOWN}); rename the "
        "columns, or convert the data"
    )


def id_columns(format: QuestionFormat) -> tuple[str, ...]:
    """The columns that may hold a row's id; values of the first must be unique."""
    return _ID_COLUMNS.get(format, ("id", "question_id", "prompt_id"))


def columns_read(format: QuestionFormat) -> frozenset[str]:
    """The columns that a format reads; others say nothing of the question."""
    own = {"prompt_list": ("prompt",), "alpaca_eval": ("instruction", "output", "generator", "dataset")}
    of_format = own.get(format) or (*_ASKED.get(format, (format,)), *(("history",) if format in _ASKED else ()))
    return frozenset((*of_format, *id_columns(format), *_READ_IN_ALL))


def to_question(row: Mapping[str, Any], format: QuestionFormat, roles: Mapping[str, str] = DEFAULT_ROLES) -> Question:
    """The question of one row. Texts are not stripped.

    Of a conversation these are all turns of the user, with the system message before them.

    Args:
        row: the raw row.
        format: of its columns.
        roles: the role of each speaker, keys in lower case, as ``merge_roles`` gives them.

    Raises:
        UnusableRow: if the row cannot be asked.
    """
    conversation = with_sides(row, _reading(row, format, roles), ())
    if conversation.tools:
        raise UnusableRow("has_tools", "the question comes with schemas of tools, which are not given to a model here")
    messages = conversation.messages
    turns, system = _turns(messages), _system(messages)
    of_alpaca_eval = format == "alpaca_eval"
    return Question(
        turns,
        _text_or_none(row, "category"),
        references_for(row.get("reference"), len(turns)),
        system,
        _baseline(row) if of_alpaca_eval else None,
        _text_or_none(row, "generator") if of_alpaca_eval else None,
        _text_or_none(row, "dataset") if of_alpaca_eval else None,
    )


def references_for(value: Any, num_turns: int) -> tuple[str | None, ...] | None:
    """The reference of each turn, from a text or a list of texts that may be shorter; None if none has any words.

    Raises:
        UnusableRow: if the value is something else, or has more references than there are turns.
    """
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(text is None or isinstance(text, str) for text in texts):
        raise UnusableRow("bad_reference", "the reference is neither a text nor a list of texts")
    if len(texts) > num_turns:
        raise UnusableRow("bad_reference", f"{len(texts)} references for {num_turns} turns")
    padded = [*texts, *[None] * (num_turns - len(texts))]
    found = tuple(text if text is not None and text.strip() else None for text in padded)
    if any(found):
        read_texts([("user", text) for text in found if text is not None], DEFAULT_ROLES, "reference")
        return found
    return None


def _reading(row: Mapping[str, Any], format: QuestionFormat, roles: Mapping[str, str]) -> Reading:
    """The messages that a row holds."""
    if format in _ASKED:
        return Reading(exchange(row, _ASKED[format], None))
    column = "prompt" if format == "prompt_list" else format
    value = require_column(row, column)
    if format == "turns" or (format == "prompt_list" and _is_texts(value)):
        return Reading(_listed(value, column))
    speaker_key = "from" if format == "conversations" else "role"
    reading = read_messages(value, roles, column, speaker_key=speaker_key)
    _check_conversation(reading.messages)
    return reading


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(item, Mapping) for item in value)


def _listed(value: Any, column: str) -> list[Message]:
    """A list of turns as messages of the user."""
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else f"{type(value).__name__}, not a list"
        raise UnusableRow("missing_conversation", f"column {column!r} is {kind}")
    return read_texts([("user", text) for text in value], DEFAULT_ROLES, column)


def _check_conversation(messages: Sequence[Message]) -> None:
    """Refuse a conversation whose user does not take turns with the assistant."""
    before = ""
    for number, message in enumerate(messages, start=1):
        role = message["role"]
        if role == "user" and before == "user":
            raise UnusableRow("roles_do_not_alternate", f"messages {number - 1} and {number} are both user")
        before = before if role == "system" else role


def _turns(messages: Sequence[Message]) -> tuple[str, ...]:
    turns = tuple(message["content"] for message in messages if message["role"] == "user")
    if not turns:
        raise UnusableRow("no_user_turn", f"the roles are {', '.join(message['role'] for message in messages)}")
    return turns


def _system(messages: Sequence[Message]) -> str | None:
    """The system message that begins the conversation; several are one text, with a blank line between them."""
    first = next(place for place, message in enumerate(messages) if message["role"] == "user")
    if any(message["role"] == "system" for message in messages[first:]):
        raise UnusableRow("system_message_later", "a system message stands after the first turn of the user")
    texts = [message["content"] for message in messages[:first] if message["role"] == "system"]
    return "\n\n".join(texts) or None


def _text_or_none(row: Mapping[str, Any], column: str) -> str | None:
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    text: str = read_texts([("user", value)], DEFAULT_ROLES, column)[0]["content"]
    return text


def _baseline(row: Mapping[str, Any]) -> str:
    """The baseline's answer, which may be empty."""
    value = require_column(row, "output")
    if isinstance(value, str) and not value.strip():
        return value
    text: str = read_texts([("user", value)], DEFAULT_ROLES, "output")[0]["content"]
    return text
