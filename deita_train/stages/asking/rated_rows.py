"""What the stages that ask about each row of the pool share: the turns, and the table of a column."""

from array import array
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from deita_train.data.arrow_columns import arrow_column, texts_by_code
from deita_train.data.conversations import user_turns
from deita_train.data.lazy_sequence import LazySequence
from deita_train.data.row_blocks import RowBlocks
from deita_train.data.row_table import as_dataset
from deita_train.errors import UserError
from deita_train.evolve.elimination import is_final
from deita_train.evolve.reading import Unusable
from deita_train.llm.client import Asker
from deita_train.stages.asking.asker import spent
from deita_train.stages.context import StageContext, StageResult

Turn = tuple[str, str | None]
"""The instruction and the response."""


class Turns(LazySequence[Turn]):
    """The user turns of a pool, whose texts are read where they are wanted.

    Attributes:
        rows: the row of each turn, `[T]` int64.
    """

    def __init__(self, pool: datasets.Dataset, *, answered: bool) -> None:
        """Find the turns.

        Args:
            pool: the rows.
            answered: whether only turns with a response count.
        """
        self._pool = RowBlocks(pool, ["messages"])
        rows, numbers = array("q"), array("i")
        for row in range(len(pool)):
            for number, (_, response) in enumerate(self._turns(row)):
                if response is not None or not answered:
                    rows.append(row)
                    numbers.append(number)
        self.rows = np.array(rows, np.int64)
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, place: int) -> Turn:
        """A turn's texts."""
        return self._turns(int(self.rows[place]))[self._numbers[place]]

    def _turns(self, row: int) -> list[Turn]:
        return user_turns(self._pool[row]["messages"])


class Reasons:
    """Why turns have no value: a byte for each of them, and each different reason once."""

    def __init__(self, num_turns: int) -> None:
        self._codes = np.full(num_turns, -1, np.int8)
        self._texts: list[str] = []

    def put(self, turn: int, reason: str | None) -> None:
        """Say why a turn has no value, None if it has one; the last word counts."""
        if reason is not None and reason not in self._texts:
            self._texts.append(reason)
        self._codes[turn] = -1 if reason is None else self._texts.index(reason)

    def of_rows(self, rows: np.ndarray, has_value: np.ndarray, without_turns: str | None = None) -> pa.Array:
        """The reason of each row's last turn without a value, null for a row that has one.

        Args:
            rows: the row of each turn, `[T]`.
            has_value: whether a row has a value, `[N]` bool.
            without_turns: the reason of rows without a turn.
        """
        texts = [*self._texts, *([] if without_turns is None else [without_turns])]
        codes = np.full(len(has_value), len(texts) - 1 if without_turns is not None else -1)
        failed = self._codes >= 0
        np.maximum.at(last := np.full(len(codes), -1), rows[failed], np.flatnonzero(failed))
        codes[last >= 0] = self._codes[last[last >= 0]]
        return texts_by_code(np.where(has_value, -1, codes), texts)


def pool_of(context: StageContext) -> datasets.Dataset:
    """The rows to ask about."""
    return datasets.load_from_disk(str(context.parents["pool"] / "data"))


def is_settled(outcome: object) -> bool:
    """Whether an answer can be used, or asking again would not help."""
    return not isinstance(outcome, Unusable) or is_final(outcome.reason)


def leave_column(
    context: StageContext,
    asker: Asker,
    column: str,
    values: pa.Array,
    reasons: pa.Array,
    found: Mapping[str, Any] = MappingProxyType({}),
) -> StageResult:
    """Write a value for each row, null with a reason where there is none; `found` are further metrics.

    Raises:
        UserError: no row has one.
    """
    nulls = {entry["values"]: entry["counts"] for entry in reasons.drop_null().value_counts().to_pylist()}
    if values.null_count == len(values):
        raise UserError(f"{context.label}: no answer could be used: {nulls}. Read the answers' log.")
    table = {"id": arrow_column(pool_of(context), "id"), column: values, "reason": reasons}
    as_dataset(pa.table(table)).save_to_disk(str(context.data_dir))
    metrics = {"rows": len(values), "nulls": nulls, **found, **spent(asker)}
    return StageResult(len(values), len(values), metrics=metrics)
