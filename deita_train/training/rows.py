"""Training rows: `input_ids`, `labels`, `length`, prepared once on disk before any rank starts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import datasets

from deita_train.data.rendering import IGNORED
from deita_train.errors import UserError

FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "length": datasets.Value("int32"),
    }
)
_NAMED = 5


@dataclass
class RowCount:
    """What the preparation of training rows met."""

    rows: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    truncated: int = 0
    without_loss: int = 0
    without_loss_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LabelledRow:
    """One row before it is counted: its id, ids and labels of equal length, and whether it was cut."""

    id: str
    input_ids: list[int]
    labels: list[int]
    truncated: bool = False


def write_training_rows(rows: Iterable[LabelledRow], folder: Path) -> RowCount:
    """Write the rows that carry a loss as a `save_to_disk` folder, and count and name those that do not.

    A row whose labels are all -100 (an answer beyond the length limit, say) teaches nothing and is left out. Raises
    :class:`UserError` when no row is left.
    """
    count = RowCount()
    kept = list(_with_loss(rows, count))
    if not kept:
        raise UserError(
            f"none of {count.without_loss} rows has a token to learn from; the first are "
            f"{', '.join(count.without_loss_ids)}. Raise max_length, or check that the rows have assistant answers."
        )
    dataset = datasets.Dataset.from_list(kept, features=FEATURES)
    dataset.save_to_disk(str(folder))
    return count


def _with_loss(rows: Iterable[LabelledRow], count: RowCount) -> Iterator[dict]:
    for row in rows:
        loss_tokens = sum(label != IGNORED for label in row.labels[1:])
        if loss_tokens == 0:
            count.without_loss += 1
            if len(count.without_loss_ids) < _NAMED:
                count.without_loss_ids.append(row.id)
            continue
        count.rows += 1
        count.tokens += len(row.input_ids)
        count.loss_tokens += loss_tokens
        count.truncated += row.truncated
        yield {"input_ids": row.input_ids, "labels": row.labels, "length": len(row.input_ids)}
