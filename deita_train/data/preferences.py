"""Preference pairs: a prompt with a chosen and a rejected answer, as one dataset with an account of unused rows.

Formats differ in where the prompt is:

- ultrafeedback: ``chosen`` and ``rejected`` are whole conversations that share everything but their last message, the
  prompt. A column ``prompt`` repeats it and is not read.
- sharegpt_pairs: the prompt is ``conversations``, and each answer is one message.
- prompt_pairs: the prompt is ``prompt``, a string or a list of messages; so is each answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.conversations import (
    DEFAULT_ROLES,
    Message,
    UnusableRow,
    check_order,
    checked_messages,
    merge_roles,
    require_column,
    speaker_texts,
)
from deita_train.data.drawing import drawn_rows
from deita_train.data.intake import Account, IntakeReport, RowIds, RowSource, chosen_format
from deita_train.data.row_table import MESSAGES_TYPE, RowTable, as_dataset
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError

PairFormat = Literal["ultrafeedback", "sharegpt_pairs", "prompt_pairs"]
PAIR_FORMATS: tuple[PairFormat, ...] = get_args(PairFormat)

PAIR_FORMAT_COLUMNS: Mapping[PairFormat, tuple[str, ...]] = MappingProxyType(
    {
        "ultrafeedback": ("prompt", "chosen", "rejected"),
        "sharegpt_pairs": ("conversations", "chosen", "rejected"),
        "prompt_pairs": ("prompt", "chosen", "rejected"),
    }
)
"""The columns that each format turns into a pair, or may leave out (``prompt`` of ultrafeedback)."""

PairDropReason = Literal[
    "missing_conversation",  # these seven as in data.conversations, of the prompt or an answer
    "unknown_role",
    "not_text",
    "empty_message",
    "answer_not_assistant",  # an answer is by another speaker
    "several_answers",  # where an answer alone should be there are more messages
    "prompts_differ",  # the two conversations differ before their last messages
    "prompt_ends_with_answer",  # the prompt's last message is the assistant's
    "system_not_first",
    "no_user_turn",
    "roles_do_not_alternate",
    "answers_equal",  # there is no preference
    "not_sampled",  # usable, but not drawn
]
PAIR_DROP_REASONS: tuple[PairDropReason, ...] = get_args(PairDropReason)
"""Why a row is not used; if several apply, the first one encountered."""

_TYPES = {"prompt": MESSAGES_TYPE, "chosen": pa.string(), "rejected": pa.string()}


@dataclass(frozen=True)
class PreferencePair:
    """``prompt`` ends with a user message; ``chosen`` and ``rejected`` are the texts of two answers to it."""

    prompt: list[Message]
    chosen: str
    rejected: str


class PreferenceSource(RowSource):
    """Rows to read pairs from: ``format`` is one of ``PAIR_FORMATS``; ``instruction_share`` applies to prompts."""

    def __post_init__(self) -> None:
        if self.format is not None:
            require_pair_format(self.format)
        super().__post_init__()


@dataclass(frozen=True)
class PreferenceReport(IntakeReport):
    """What became of the rows; ``drops`` by ``PAIR_DROP_REASONS``.

    Attributes:
        format: the format that the rows were read as.
        mean_chosen_chars: characters per chosen answer of the table.
        mean_rejected_chars: characters per rejected answer of the table.
        chosen_longer_share: share of the table's pairs whose chosen answer has more characters than the rejected one.
    """

    format: str
    mean_chosen_chars: float
    mean_rejected_chars: float
    chosen_longer_share: float


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
    """The format of a row by its columns; with a ``prompt``, answers that are whole conversations mean ultrafeedback.

    Raises:
        UserError: listing the row's columns, if they fit no format.
    """
    if "chosen" in row and "rejected" in row:
        if "conversations" in row:
            return "sharegpt_pairs"
        answers = (row["chosen"], row["rejected"])
        if "prompt" not in row or any(isinstance(answer, list) and len(answer) > 1 for answer in answers):
            return "ultrafeedback"
        return "prompt_pairs"
    known = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in PAIR_FORMAT_COLUMNS.items())
    raise UserError(
        f"the columns {', '.join(map(repr, row)) or '(none)'} fit no format of preference pairs ({known});"
        " rename the columns, or convert the data"
    )


def to_pair(row: Mapping[str, Any], format: str, roles: Mapping[str, str] = DEFAULT_ROLES) -> PreferencePair:
    """The pair of one row. Texts are not stripped.

    A prompt may start with a system message, then with an assistant message; roles alternate from there.

    Args:
        row: the raw row.
        format: one of ``PAIR_FORMATS``.
        roles: the role of each speaker, keys in lower case, as ``merge_roles`` gives them.

    Raises:
        UnusableRow: if the row cannot be used.
        UserError: if the format is unknown.
    """
    known = require_pair_format(format)
    if known == "ultrafeedback":
        prompt, chosen, rejected = _split_conversations(row, roles)
    else:
        prompt = _prompt(row, known, roles)
        chosen, rejected = (_lone_answer(row, column, roles) for column in ("chosen", "rejected"))
    _check_prompt(prompt)
    if chosen == rejected:
        raise _unusable("answers_equal", f"both are {chosen[:40]!r}")
    return PreferencePair(prompt, chosen, rejected)


def build_preferences(
    source: PreferenceSource, sample: int | None = None, seed: int | None = None
) -> tuple[datasets.Dataset, PreferenceReport]:
    """Read ``source`` into one dataset held in Arrow memory.

    Columns: ``id`` (str, unique), ``prompt`` (list of {role, content}), ``chosen``, ``rejected`` (str), ``source`` (the
    row's own, else the source's name), then every other column whose values are scalars. An id is the row's own ``id``,
    else its ``prompt_id`` (with ":<row index>" behind it where a prompt has several pairs), else
    "<source name>:<row index>".

    Args:
        source: the rows.
        sample: number of usable pairs to draw; None for all. The draw depends on the ids, not on their order; drawn
            pairs keep the order of the input.
        seed: of the draw; required with ``sample``, unused otherwise.

    Raises:
        UserError: if an id repeats, a column's type changes, no format fits, no row is usable, or fewer rows than
            ``sample`` are.
    """
    builder = _PreferenceBuilder(source)
    builder.read()
    return builder.finish(sample, seed)


class _PreferenceBuilder:
    """Reads a source into Arrow chunks, counting rows."""

    def __init__(self, source: PreferenceSource) -> None:
        self.source = source
        self.format = require_pair_format(source.format) if source.format else None
        self.table = RowTable(_TYPES)
        self.ids = RowIds(source.name, ("id", "prompt_id"))
        self.account = Account()

    def read(self) -> None:
        roles = merge_roles(self.source.roles)
        rows: Iterable[SourceRow] = self.source.rows
        if self.format is None:
            self.format, rows = chosen_format(rows, detect_pair_format)
        for row in rows:
            try:
                pair = to_pair(row.row, self.format, roles)
            except UnusableRow as verdict:
                self.account.drop(row, verdict)
                continue
            if self.source.wants(pair.prompt):
                self._keep(row, pair, self.format)
            else:
                self.account.rows_outside_share += 1

    def _keep(self, row: SourceRow, pair: PreferencePair, format: PairFormat) -> None:
        self.account.rows_in += 1
        self.ids.add(row)
        self.table.append(row, self.source.name, vars(pair), PAIR_FORMAT_COLUMNS[format])

    def finish(self, sample: int | None, seed: int | None) -> tuple[datasets.Dataset, PreferenceReport]:
        ids = list(self.ids.positions)
        if not ids:
            raise self.account.nothing_usable([self.source.name])
        assert self.format is not None, "a usable row has a format"
        table = self.table.finish(ids)
        if sample is not None:
            assert seed is not None, "a draw needs a seed"
            table = table.filter(pa.array(self._drawn(ids, sample, seed)))
            if sample < len(ids):
                self.account.drops["not_sampled"] = len(ids) - sample
        account = self.account.closed(table.num_rows, self.table.left_out)
        return as_dataset(table), PreferenceReport(**account, format=self.format, **_lengths(table))

    def _drawn(self, ids: Sequence[str], sample: int, seed: int) -> np.ndarray:
        """Which rows are drawn, ``[N]`` bool."""
        if sample > len(ids):
            raise UserError(
                f"sample: {sample} pairs are asked for, and {self.source.name} has {len(ids)} usable ones"
                f" ({self.account.drops.total()} more rows cannot be used, and {self.account.rows_outside_share} lie"
                f" outside the instruction share); state at most {len(ids)}, or leave sample out"
            )
        return drawn_rows(ids, sample, seed)


def _lengths(table: pa.Table) -> dict[str, Any]:
    chosen, rejected = (pc.utf8_length(table[column]).to_numpy() for column in ("chosen", "rejected"))
    return {
        "mean_chosen_chars": float(chosen.mean()),
        "mean_rejected_chars": float(rejected.mean()),
        "chosen_longer_share": float((chosen > rejected).mean()),
    }


def _split_conversations(row: Mapping[str, Any], roles: Mapping[str, str]) -> tuple[list[Message], str, str]:
    """The common prompt and the two last messages of ``chosen`` and ``rejected``."""
    columns = ("chosen", "rejected")
    texts = [speaker_texts(require_column(row, column), column, "sharegpt") for column in columns]
    chosen, rejected = (checked_messages(of, roles, column) for of, column in zip(texts, columns, strict=True))
    answers = [_answer(messages[-1], column) for messages, column in zip((chosen, rejected), columns, strict=True)]
    if chosen[:-1] != rejected[:-1]:
        raise _unusable("prompts_differ", _first_difference(chosen[:-1], rejected[:-1]))
    return chosen[:-1], answers[0], answers[1]


def _first_difference(first: Sequence[Message], second: Sequence[Message]) -> str:
    if len(first) != len(second):
        return f"chosen has {len(first)} messages before its answer, rejected {len(second)}"
    number = next(number for number, pair in enumerate(zip(first, second, strict=True), start=1) if pair[0] != pair[1])
    return f"chosen and rejected differ in message {number}, which is not their last"


def _prompt(row: Mapping[str, Any], format: PairFormat, roles: Mapping[str, str]) -> list[Message]:
    column = PAIR_FORMAT_COLUMNS[format][0]
    value = require_column(row, column)
    if format == "prompt_pairs" and not isinstance(value, list):
        return checked_messages([("user", value)], roles, column)
    return checked_messages(speaker_texts(value, column, "sharegpt"), roles, column)


def _lone_answer(row: Mapping[str, Any], column: str, roles: Mapping[str, str]) -> str:
    value = require_column(row, column)
    if isinstance(value, dict):
        value = [value]
    texts = speaker_texts(value, column, "sharegpt") if isinstance(value, list) else [("assistant", value)]
    messages = checked_messages(texts, roles, column)
    if len(messages) > 1:
        detail = f"column {column!r} holds {len(messages)} messages, not the answer alone"
        raise _unusable("several_answers", f"{detail} (whole conversations are format ultrafeedback)")
    return _answer(messages[0], column)


def _answer(message: Message, column: str) -> str:
    if message["role"] != "assistant":
        raise _unusable("answer_not_assistant", f"the answer in column {column!r} is by the role {message['role']}")
    return message["content"]


def _check_prompt(prompt: Sequence[Message]) -> None:
    roles = [message["role"] for message in prompt]
    if roles and roles[-1] == "assistant":
        raise _unusable("prompt_ends_with_answer", f"the prompt's roles are {', '.join(roles)}")
    check_order([*roles, "assistant"])


def _unusable(reason: PairDropReason, detail: str) -> UnusableRow:
    return UnusableRow(reason, detail)
