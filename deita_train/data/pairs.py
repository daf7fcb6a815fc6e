"""Preference pairs of one row: a prompt with a chosen and a rejected answer.

Formats differ in where the prompt is:

- ultrafeedback: ``chosen`` and ``rejected`` are whole conversations that share everything but their last message, the
  prompt. A column ``prompt`` repeats it; of it a system message is read that both conversations leave out.
- sharegpt_pairs: the prompt is ``conversations``, and each answer is one message.
- prompt_pairs: the prompt is ``prompt``, a string or a list of messages; so is each answer.
- question_pairs, instruction_pairs: the prompt is a question, or an instruction with an input; earlier exchanges may
  stand in ``history``.
- transcript_pairs: as ultrafeedback, but each conversation is one text with "Human:" and "Assistant:" before the turns.

In each of them a system message may come from a column, and schemas of tools from ``tools``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from types import MappingProxyType
from typing import Any, Literal, get_args

from deita_train.data.conversations import (
    DEFAULT_ROLES,
    Conversation,
    Message,
    UnusableRow,
    check_order,
    exchange,
    require_column,
    with_sides,
)
from deita_train.data.formats import PairFormat
from deita_train.data.messages import REASONING_FIELDS, Reading, read_messages, read_texts
from deita_train.data.transcripts import is_open_transcript, is_transcript, transcript_texts
from deita_train.errors import UserError

PAIR_FORMATS: tuple[PairFormat, ...] = get_args(PairFormat)

SIDES = ("chosen", "rejected")
FIELDS_OF: Mapping[str, str] = MappingProxyType({side: f"{side}_fields" for side in SIDES})

PAIR_FORMAT_COLUMNS: Mapping[PairFormat, tuple[str, ...]] = MappingProxyType(
    {
        "ultrafeedback": ("prompt", "chosen", "rejected"),
        "sharegpt_pairs": ("conversations", "chosen", "rejected"),
        "prompt_pairs": ("prompt", "chosen", "rejected"),
        "question_pairs": ("question", "chosen", "rejected"),
        "instruction_pairs": ("instruction", "input", "chosen", "rejected"),
        "transcript_pairs": ("chosen", "rejected"),
    }
)
"""The columns that each format turns into a pair, or may leave out (``prompt`` of ultrafeedback, ``input``)."""

_WHOLE: tuple[PairFormat, ...] = ("ultrafeedback", "transcript_pairs")
"""The formats whose answers are whole conversations."""
_ASKED: Mapping[PairFormat, tuple[str, ...]] = MappingProxyType(
    {"question_pairs": ("question", "context"), "instruction_pairs": ("instruction", "input", "context")}
)
_CONSUMED: Mapping[PairFormat, tuple[str, ...]] = MappingProxyType(
    {
        name: (*columns, *((*_ASKED[name], "history") if name in _ASKED else ()), "tools")
        for name, columns in PAIR_FORMAT_COLUMNS.items()
    }
)

PairDropReason = Literal[
    "missing_conversation",  # these as in data.conversations, of the prompt or an answer
    "unknown_role",
    "bad_tool_calls",
    "not_text",
    "bad_weight",
    "empty_message",
    "answer_not_assistant",  # an answer is by another speaker
    "several_answers",  # where an answer alone should be there are more messages
    "prompts_differ",  # the two conversations differ before their last messages
    "prompt_ends_with_answer",  # the prompt's last message is the assistant's
    "no_user_turn",
    "roles_do_not_alternate",
    "tool_result_without_call",
    "bad_tools",
    "answers_equal",  # there is no preference
    "not_sampled",  # usable, but not drawn
]
PAIR_DROP_REASONS: tuple[PairDropReason, ...] = get_args(PairDropReason)
"""Why a row is not used; if several apply, the first one encountered."""


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt.

    Attributes:
        prompt: the messages before the answers; the last one is the user's or a tool's.
        chosen: the text of the better answer.
        rejected: the text of the other one.
        chosen_fields: what else the better answer has, such as reasoning and tool calls; None for nothing.
        rejected_fields: the same of the other one.
        tools: the schemas of the tools that the assistant may call; None for none.
    """

    prompt: list[Message]
    chosen: str
    rejected: str
    chosen_fields: dict[str, Any] | None = None
    rejected_fields: dict[str, Any] | None = None
    tools: list[Any] | None = None


def require_pair_format(name: str) -> PairFormat:
    """``name`` as a ``PairFormat``.

    Raises:
        UserError: if there is no such format.
    """
    for known in PAIR_FORMATS:
        if name == known:
            return known
    raise UserError(f"format {name!r} is unknown; for preference pairs allowed are {', '.join(PAIR_FORMATS)}")


def detect_pair_format(row: Mapping[str, Any]) -> PairFormat:
    """The format of a row by its columns, and where several have them, by the answers.

    Answers that are whole conversations mean ultrafeedback even beside a ``prompt``.

    Raises:
        UserError: naming the row's columns, if they fit no format.
    """
    if "chosen" in row and "rejected" in row:
        found = _format_with_answers(row)
        if found is not None:
            return found
    known = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in PAIR_FORMAT_COLUMNS.items())
    raise UserError(
        f"the columns {', '.join(map(repr, row)) or '(none)'} fit no format of preference pairs ({known}; 'input' may"
        " be absent, and so may 'prompt' where the answers are whole conversations, as lists of messages or as texts"
        " with Human: and Assistant: before the turns); rename the columns, or convert the data"
    )


def _format_with_answers(row: Mapping[str, Any]) -> PairFormat | None:
    """The format of a row that has both answers."""
    answers = [row[side] for side in SIDES]
    # So are tables of ours, whatever columns their rows had of their own.
    if isinstance(row.get("prompt"), list) and all(isinstance(answer, str) for answer in answers):
        return "prompt_pairs"
    if "conversations" in row:
        return "sharegpt_pairs"
    if any(isinstance(answer, list) and len(answer) > 1 for answer in answers):
        return "ultrafeedback"
    if "prompt" in row:
        return "prompt_pairs"
    if "question" in row:
        return "question_pairs"
    if "instruction" in row:
        return "instruction_pairs"
    if any(isinstance(answer, str) for answer in answers):
        return "transcript_pairs" if any(map(is_transcript, answers)) else None
    return "ultrafeedback"


def to_pair(row: Mapping[str, Any], format: str, roles: Mapping[str, str] = DEFAULT_ROLES) -> PreferencePair:
    """The pair of one row. Texts are not stripped, except the one space behind a transcript's speaker.

    A prompt may start with system messages, then with an assistant message; roles alternate from there.

    Args:
        row: the raw row.
        format: one of ``PAIR_FORMATS``.
        roles: the role of each speaker, keys in lower case, as ``merge_roles`` gives them.

    Raises:
        UnusableRow: if the row cannot be used.
        UserError: if the format is unknown.
    """
    return as_pair(*read_pair(row, require_pair_format(format), roles))


def as_pair(prompt: Conversation, chosen: Message, rejected: Message) -> PreferencePair:
    """A pair whose answers are text, with what else they have beside it."""
    answers: dict[str, Any] = {}
    for side, message in (("chosen", chosen), ("rejected", rejected)):
        fields = {name: value for name, value in message.items() if name not in ("role", "content")}
        answers |= {side: message["content"], FIELDS_OF[side]: fields or None}
    return PreferencePair(prompt.messages, **answers, tools=prompt.tools)


def read_pair(
    row: Mapping[str, Any], format: PairFormat, roles: Mapping[str, str]
) -> tuple[Conversation, Message, Message]:
    """The prompt and both answers, checked.

    Raises:
        UnusableRow: if the row cannot be used.
    """
    if format in _WHOLE:
        reading, chosen, rejected = _split_conversations(row, format, roles)
    else:
        reading = _prompt(row, format, roles)
        chosen, rejected = (_lone_answer(row, side, roles) for side in SIDES)
    _check_prompt(reading.messages)
    prompt = with_sides(row, reading, _consumed(row, format))
    if _said(chosen) == _said(rejected):
        raise _unusable("answers_equal", f"both are {chosen['content'][:40]!r}")
    return prompt, chosen, rejected


def _split_conversations(
    row: Mapping[str, Any], format: PairFormat, roles: Mapping[str, str]
) -> tuple[Reading, Message, Message]:
    """The common prompt and the two last messages of ``chosen`` and ``rejected``."""
    read = _transcript if format == "transcript_pairs" else _messages
    chosen, rejected = (read(row, side, roles) for side in SIDES)
    answers = [_answer(reading.messages, side) for reading, side in zip((chosen, rejected), SIDES, strict=True)]
    prompts = [reading.messages[:-1] for reading in (chosen, rejected)]
    if list(map(_said, prompts[0])) != list(map(_said, prompts[1])):
        raise _unusable("prompts_differ", _first_difference(*prompts))
    before = _system_of_prompt(row, prompts[0], roles) if format == "ultrafeedback" else Reading([])
    return Reading([*before.messages, *prompts[0]], before.num_left_out + chosen.num_left_out), answers[0], answers[1]


def _system_of_prompt(row: Mapping[str, Any], messages: Sequence[Message], roles: Mapping[str, str]) -> Reading:
    """The system messages at the beginning of a list in ``prompt``, where the conversations have none."""
    value = row.get("prompt")
    if not isinstance(value, list) or any(message["role"] == "system" for message in messages):
        return Reading([])
    leading = list(takewhile(partial(_is_system, roles), value))
    return _messages({"prompt": leading}, "prompt", roles) if leading else Reading([])


def _is_system(roles: Mapping[str, str], message: Any) -> bool:
    speakers = [message.get(key) for key in ("from", "role")] if isinstance(message, dict) else []
    speaker = next((speaker for speaker in speakers if speaker is not None), None)
    return isinstance(speaker, str) and roles.get(speaker.lower()) == "system"


def _said(message: Message) -> list[Any]:
    """What a message says, without the fields that only describe it."""
    return [message.get(name) for name in ("role", "content", "tool_calls", *REASONING_FIELDS)]


def _first_difference(first: Sequence[Message], second: Sequence[Message]) -> str:
    if len(first) != len(second):
        return f"chosen has {len(first)} messages before its answer, rejected {len(second)}"
    pairs = enumerate(zip(first, second, strict=True), start=1)
    number = next(number for number, pair in pairs if _said(pair[0]) != _said(pair[1]))
    return f"chosen and rejected differ in message {number}, which is not their last"


def _messages(row: Mapping[str, Any], column: str, roles: Mapping[str, str]) -> Reading:
    return read_messages(require_column(row, column), roles, column, speaker_key="from", names_column=True)


def _transcript(row: Mapping[str, Any], column: str, roles: Mapping[str, str]) -> Reading:
    text = require_column(row, column)
    if not is_transcript(text):
        kind = "a text that does not begin with Human:" if isinstance(text, str) else type(text).__name__
        raise _unusable("missing_conversation", f"column {column!r} is {kind}, not a transcript")
    return Reading(read_texts(transcript_texts(text), DEFAULT_ROLES, column))


def _prompt(row: Mapping[str, Any], format: PairFormat, roles: Mapping[str, str]) -> Reading:
    if format in _ASKED:
        return Reading(exchange(row, _ASKED[format], None))
    column = PAIR_FORMAT_COLUMNS[format][0]
    value = require_column(row, column)
    if format == "sharegpt_pairs" or isinstance(value, list):
        return _messages(row, column, roles)
    texts = transcript_texts(value)[:-1] if is_open_transcript(value) else [("user", value)]
    return Reading(read_texts(texts, DEFAULT_ROLES, column))


def _lone_answer(row: Mapping[str, Any], column: str, roles: Mapping[str, str]) -> Message:
    """The answer in a column, with the fields that a table of pairs keeps in a column of their own."""
    value = require_column(row, column)
    if _has_fields(row, column):
        value = {**row[FIELDS_OF[column]], "role": "assistant", "content": value}
    if not isinstance(value, list | dict):
        return read_texts([("assistant", value)], DEFAULT_ROLES, column)[0]
    if isinstance(value, dict):
        value = [value]
    messages = read_messages(value, roles, column, speaker_key="from", names_column=True).messages
    if len(messages) > 1:
        detail = f"column {column!r} holds {len(messages)} messages, not the answer alone"
        raise _unusable("several_answers", f"{detail} (whole conversations are format ultrafeedback)")
    return _answer(messages, column)


def _consumed(row: Mapping[str, Any], format: PairFormat) -> list[str]:
    """The columns that a pair is read from."""
    alone = format not in _WHOLE
    read = [side for side in SIDES if row.get(FIELDS_OF[side]) is None or (alone and _has_fields(row, side))]
    return [*_CONSUMED[format], *(FIELDS_OF[side] for side in read)]


def _has_fields(row: Mapping[str, Any], column: str) -> bool:
    """Whether an answer has further fields in a column of their own, as in a table of pairs."""
    return isinstance(row.get(FIELDS_OF[column]), dict) and isinstance(row.get(column), str)


def _answer(messages: Sequence[Message], column: str) -> Message:
    role = messages[-1]["role"] if messages else "system"
    if role != "assistant":
        raise _unusable("answer_not_assistant", f"the answer in column {column!r} is by the role {role}")
    return messages[-1]


def _check_prompt(prompt: Sequence[Message]) -> None:
    roles = [message["role"] for message in prompt]
    if roles and roles[-1] == "assistant":
        raise _unusable("prompt_ends_with_answer", f"the prompt's roles are {', '.join(roles)}")
    check_order([*roles, "assistant"])


def _unusable(reason: PairDropReason, detail: str) -> UnusableRow:
    return UnusableRow(reason, detail)
