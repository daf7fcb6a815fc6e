"""Labelled rows for a scorer as (instruction, response, score), from the formats in which such data comes."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deita_train.data.conversations import UnusableRow, detect_format, merge_roles, to_messages, user_turns
from deita_train.data.intake import instruction_fraction
from deita_train.data.plain_values import is_unicode_text
from deita_train.data.sources import SourceRow
from deita_train.errors import UserError
from deita_train.scoring.prompts import COMPLEXITY_PROMPT, DIGITS, QUALITY_PROMPT

LEVELS = len(DIGITS)


@dataclass(frozen=True)
class ScorerExample:
    """One labelled turn.

    Attributes:
        where: file and row, for messages.
        instruction: of the user.
        response: None where only the instruction is judged.
        score: from 1 to 6.
    """

    where: str
    instruction: str
    response: str | None
    score: int


@dataclass(frozen=True)
class LabelColumn:
    """How labelled conversations are read.

    Attributes:
        name: the column of the label.
        rank_within_instruction: whether labels become 1 to 6 by their rank among the answers to one instruction; else
            they are 1 to 6 already.
        format: of the conversations; None to detect it.
        roles: the role of each additional speaker.
        instruction_share: which instructions are read, as bounds in [0, 1] of a hash; None for all.
    """

    name: str
    rank_within_instruction: bool
    format: str | None
    roles: Mapping[str, str]
    instruction_share: tuple[float, float] | None


def read_examples(rows: Iterable[SourceRow], dimension: str, label: LabelColumn | None) -> list[ScorerExample]:
    """Examples of one dimension.

    Args:
        rows: published `input`/`target` rows, instruction/response/score rows, or with `label` conversations.
        dimension: "complexity" or "quality".
        label: how conversations are read; None for rows of the other forms.

    Raises:
        UserError: there is no row, or one does not have the form; the message names the first of them.
    """
    if label is not None:
        examples = _from_conversations(rows, dimension, label)
    else:
        examples = [_from_row(row, dimension) for row in rows]
    if not examples:
        raise UserError("the scorer's data has no rows; give more of them, or widen instruction_share")
    return examples


def rank_levels(values: list[float], levels: int = LEVELS) -> list[int]:
    """Levels 1 to `levels` by rank: the sorted values are cut into `levels` parts of equal size.

    Equal values share the level of their mean rank, so the order of the rows does not matter.
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in range(start, end + 1):
            ranks[order[place]] = (start + end) / 2
        start = end + 1
    return [min(levels, 1 + math.floor(levels * (rank + 0.5) / len(values))) for rank in ranks]


def _from_row(row: SourceRow, dimension: str) -> ScorerExample:
    values = row.row
    if "input" in values and "target" in values:
        instruction, response = _split_prompt(_unicode(str(values["input"]), "input", row.where), dimension, row.where)
        return ScorerExample(row.where, instruction, response, _score(values["target"], row.where))
    wanted = ("instruction", "score") if dimension == "complexity" else ("instruction", "response", "score")
    missing = [name for name in wanted if name not in values]
    if missing:
        raise UserError(
            f"{row.where}: a scorer's row has input and target, or {', '.join(wanted)}; {', '.join(missing)} "
            f"is missing (columns: {', '.join(map(repr, values))}). For conversations with a label column, state "
            "label:."
        )
    response = None if dimension == "complexity" else _text(row, "response")
    return ScorerExample(row.where, _text(row, "instruction"), response, _score(values["score"], row.where))


def _text(row: SourceRow, name: str) -> str:
    value = row.row[name]
    if not isinstance(value, str):
        raise UserError(f"{row.where}: {name} {value!r} is not a string; fix the row or leave it out")
    return _unicode(value, name, row.where)


def _unicode(text: str, name: str, where: str) -> str:
    if not is_unicode_text(text):
        raise UserError(
            f"{where}: {name} holds a lone surrogate, which is not Unicode text; fix the row or leave it out"
        )
    return text


def _split_prompt(text: str, dimension: str, where: str) -> tuple[str, str | None]:
    """Take the texts out of the whole prompts of the published data, so that one renderer writes every prompt."""
    if dimension == "complexity":
        head, tail = COMPLEXITY_PROMPT.split("{instruction}")
        if text.startswith(head) and text.rstrip(" ").endswith(tail.rstrip(" ")):
            return text[len(head) : text.rindex(tail.rstrip(" "))], None
    else:
        head, rest = QUALITY_PROMPT.split("{instruction}")
        middle, tail = rest.split("{output}")
        if text.startswith(head) and middle in text and text.rstrip(" ").endswith(tail.rstrip(" ")):
            body = text[len(head) : text.rindex(tail.rstrip(" "))]
            instruction, _, response = body.partition(middle)
            return instruction, response
    raise UserError(
        f"{where}: input is not the {dimension} scorer's prompt (see the wire formats in scoring/prompts.py)"
    )


def _score(value: Any, where: str) -> int:
    text = str(value).strip()
    if text.endswith(".0"):
        text = text[:-2]
    if text not in DIGITS or len(text) != 1:
        raise UserError(f"{where}: score {value!r} is not a whole number from 1 to 6; fix it or leave it out")
    return int(text)


def _from_conversations(rows: Iterable[SourceRow], dimension: str, label: LabelColumn) -> list[ScorerExample]:
    """The last answered turn of each conversation with its label."""
    labelled = list(_labelled_turns(rows, label))
    if label.rank_within_instruction:
        scores = _ranked(labelled)
    else:
        scores = [_score(value, where) for where, _, _, value in labelled]
    return [
        ScorerExample(where, instruction, response if dimension == "quality" else None, score)
        for (where, instruction, response, _), score in zip(labelled, scores, strict=True)
    ]


def _labelled_turns(rows: Iterable[SourceRow], label: LabelColumn) -> Iterator[tuple[str, str, str, Any]]:
    format = label.format
    roles = merge_roles(label.roles)
    for row in rows:
        try:
            format = format or detect_format(row.row)
            messages = to_messages(row.row, format, roles)
        except UnusableRow as error:
            raise UserError(f"{row.where}: {error.reason}: {error.detail}; a labelled row must be usable") from error
        except UserError as error:
            raise UserError(f"{row.where}: {error}") from error
        if label.instruction_share is not None:
            low, high = label.instruction_share
            if not low <= instruction_fraction(messages) < high:
                continue
        if row.row.get(label.name) is None:
            raise UserError(
                f"{row.where}: the label column {label.name} is missing; columns: {', '.join(map(repr, row.row))}"
            )
        answered = [(instruction, response) for instruction, response in user_turns(messages) if response is not None]
        if not answered:
            raise UserError(f"{row.where}: the label has no answered turn to belong to; leave the row out")
        instruction, response = answered[-1]
        yield row.where, instruction, response, row.row[label.name]


def _ranked(labelled: list[tuple[str, str, str, Any]]) -> list[int]:
    groups: dict[str, list[int]] = {}
    for index, (where, instruction, _, value) in enumerate(labelled):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{where}: the label {value!r} is not a finite number to rank by")
        groups.setdefault(instruction, []).append(index)
    scores = [0] * len(labelled)
    for members in groups.values():
        for index, level in zip(members, rank_levels([float(labelled[i][3]) for i in members]), strict=True):
            scores[index] = level
    return scores
