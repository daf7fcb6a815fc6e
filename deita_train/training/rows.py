"""Training rows as token ids, written to disk before any rank starts."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets

from deita_train.data.no_rows import no_row_left
from deita_train.data.rendering import IGNORED, RenderedPair
from deita_train.inference.row_file import write_dataset

# Not model inputs: the row's id, and the number of real tokens the model sees.
_BESIDE = {"id": datasets.Value("string"), "tokens": datasets.Value("int32")}
FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "length": datasets.Value("int32"),
        **_BESIDE,
    }
)
PAIR_FEATURES = datasets.Features(
    {
        "prompt_ids": datasets.List(datasets.Value("int32")),
        "chosen_ids": datasets.List(datasets.Value("int32")),
        "rejected_ids": datasets.List(datasets.Value("int32")),
        "ref_chosen_logps": datasets.Value("float32"),
        "ref_rejected_logps": datasets.Value("float32"),
        "length": datasets.Value("int32"),
        **_BESIDE,
    }
)
"""A preference pair in the columns of trl's DPOTrainer; `length` is that of the longer sequence."""
_NAMED = 5
_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass
class RowCount:
    """Counts from preparing training rows; `held_out` rows were not rendered, `refused` ones cannot be."""

    rows: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    truncated: int = 0
    without_loss: int = 0
    without_loss_ids: list[str] = field(default_factory=list)
    held_out: int = 0
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelledRow:
    """One row: its id, token ids and labels of equal length, and whether it was truncated."""

    id: str
    input_ids: list[int]
    labels: list[int]
    truncated: bool = False


@dataclass(frozen=True)
class PairRow:
    """One preference pair: its id, its token ids, and the reference model's summed log-probabilities."""

    id: str
    pair: RenderedPair
    reference_chosen: float
    reference_rejected: float


def write_training_rows(rows: Iterable[LabelledRow], folder: Path, refused: Mapping[str, int] = _NONE) -> RowCount:
    """Write the rows that have a loss to a `save_to_disk` folder.

    A row whose labels are all -100, such as one whose answer lies beyond the length limit, is left out, and its id is
    printed with the reason.

    Args:
        rows: those that can be rendered.
        folder: to write.
        refused: the others by reason, complete once `rows` are read.

    Returns:
        The counts, including the rows left out.

    Raises:
        UserError: If no row is left.
    """
    count, silent = RowCount(), Counter[str]()
    kept = (_row(row, count) for row in rows if _has_loss(row.id, silence(row), count, silent))
    return _write(kept, FEATURES, folder, count, refused, silent)


def write_pair_rows(rows: Iterable[PairRow], folder: Path, refused: Mapping[str, int] = _NONE) -> RowCount:
    """Write the pairs whose answers differ to a `save_to_disk` folder.

    A pair whose answers are equal up to the length limit, or do not fit within it, is left out, and its id is printed
    with the reason.

    Args:
        rows: the pairs that can be rendered.
        folder: to write.
        refused: the others by reason, complete once `rows` are read.

    Returns:
        The counts, including the pairs left out.

    Raises:
        UserError: If no pair is left.
    """
    count, silent = RowCount(), Counter[str]()
    kept = (_pair(row, count) for row in rows if _has_loss(row.id, pair_silence(row.pair), count, silent))
    return _write(kept, PAIR_FEATURES, folder, count, refused, silent)


def loss_mask(labels: Sequence[int]) -> list[bool]:
    """Mark the tokens that have a loss: the labelled ones, except the first, which nothing precedes."""
    return [place > 0 and label != IGNORED for place, label in enumerate(labels)]


def silence(row: LabelledRow) -> str | None:
    """Return why a row has no loss; None if it has one."""
    if any(loss_mask(row.labels)):
        return None
    return "no_answer_within_max_length" if row.truncated else "no_answer"


def pair_silence(pair: RenderedPair) -> str | None:
    """Return why a pair has no loss; None if it has one."""
    if pair.differs:
        return None
    if pair.chosen_ids and pair.rejected_ids:
        return "equal_answers_within_max_length" if pair.truncated else "equal_answers"
    return "no_answer_within_max_length" if pair.truncated else "no_answer"


def _has_loss(row_id: str, reason: str | None, count: RowCount, silent: Counter[str]) -> bool:
    if reason is None:
        return True
    sys.stdout.write(f"{row_id} has no loss and is left out: {reason}\n")
    silent[reason] += 1
    count.without_loss += 1
    if len(count.without_loss_ids) < _NAMED:
        count.without_loss_ids.append(row_id)
    return False


def _row(row: LabelledRow, count: RowCount) -> dict[str, Any]:
    count.rows += 1
    count.tokens += len(row.input_ids)
    count.loss_tokens += sum(loss_mask(row.labels))
    count.truncated += row.truncated
    tokens = len(row.input_ids)
    return {"input_ids": row.input_ids, "labels": row.labels, "length": tokens, "id": row.id, "tokens": tokens}


def _pair(row: PairRow, count: RowCount) -> dict[str, Any]:
    pair = row.pair
    answers = len(pair.chosen_ids) + len(pair.rejected_ids)
    count.rows += 1
    tokens = 2 * len(pair.prompt_ids) + answers
    count.tokens += tokens
    count.loss_tokens += answers
    count.truncated += pair.truncated
    return {
        "prompt_ids": pair.prompt_ids,
        "chosen_ids": pair.chosen_ids,
        "rejected_ids": pair.rejected_ids,
        "ref_chosen_logps": row.reference_chosen,
        "ref_rejected_logps": row.reference_rejected,
        "length": len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids)),
        "id": row.id,
        "tokens": tokens,
    }


def _write(
    kept: Iterable[Mapping[str, Any]],
    features: datasets.Features,
    folder: Path,
    count: RowCount,
    refused: Mapping[str, int],
    silent: Mapping[str, int],
) -> RowCount:
    if not write_dataset(kept, features, folder):
        raise no_row_left("has a token to learn from", {**refused, **silent}, count.without_loss_ids)
    return count
