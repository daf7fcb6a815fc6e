"""Preference pairs as one dataset, with an account of unused rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_train.data.conversations import Conversation, Message, UnusableRow, merge_roles
from deita_train.data.drawing import drawn_rows
from deita_train.data.intake import Account, IntakeReport, RowIds, RowSource, chosen_format
from deita_train.data.json_text import JSON_TYPE
from deita_train.data.pairs import FIELDS_OF, SIDES, as_pair, detect_pair_format, read_pair, require_pair_format
from deita_train.data.row_table import MESSAGES_TYPE, RowTable, as_dataset
from deita_train.data.sources import SourceRow
from deita_train.data.spilled import filtered
from deita_train.errors import UserError

_TYPES = {
    "prompt": MESSAGES_TYPE,
    **dict.fromkeys(SIDES, pa.string()),
    **dict.fromkeys((*FIELDS_OF.values(), "tools"), JSON_TYPE),
}
# By the name of a column stages tell conversations from pairs.
_RESERVED = ("messages",)


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


def build_preferences(
    source: PreferenceSource, sample: int | None = None, seed: int | None = None
) -> tuple[datasets.Dataset, PreferenceReport]:
    """Read ``source`` into one dataset held in Arrow memory.

    Columns: ``id`` (str, unique), ``prompt`` (list of {role, content}, or of JSON objects if any message has further
    fields), ``chosen``, ``rejected`` (str), ``source`` (the row's own, else the source's name), as far as a row has
    them ``chosen_fields``, ``rejected_fields`` and ``tools`` (JSON), then every other column, typed as ``RowTable``
    says. An id is the row's own ``id``, else its ``prompt_id`` (with ":<row index>" behind it where a prompt has
    several pairs), else "<source name>:<row index>".

    Args:
        source: the rows.
        sample: number of usable pairs to draw; None for all. The draw depends on the ids, not on their order; drawn
            pairs keep the order of the input.
        seed: of the draw; required with ``sample``, unused otherwise.

    Raises:
        UserError: if an id repeats, no format fits, no row is usable, or fewer rows than ``sample`` are.
    """
    builder = _PreferenceBuilder(source)
    builder.read()
    return builder.finish(sample, seed)


class _PreferenceBuilder:
    """Reads a source into Arrow chunks, counting rows."""

    def __init__(self, source: PreferenceSource) -> None:
        self.source = source
        self.format = require_pair_format(source.format) if source.format else None
        self.table = RowTable(_TYPES, _RESERVED)
        self.ids = RowIds(source.name, ("id", "prompt_id"))
        self.account = Account()

    def read(self) -> None:
        roles = merge_roles(self.source.roles)
        rows: Iterable[SourceRow] = self.source.rows
        if self.format is None:
            self.format, rows = chosen_format(rows, detect_pair_format)
        for row in rows:
            try:
                prompt, *answers = read_pair(row.row, self.format, roles)
                if self.source.wants(prompt.messages):
                    self._keep(row, prompt, answers)
                else:
                    self.account.rows_outside_share += 1
            except UnusableRow as verdict:
                self.account.drop(row, verdict)

    def _keep(self, row: SourceRow, prompt: Conversation, answers: Sequence[Message]) -> None:
        columns = self.table.own_columns(row, prompt.consumed)
        self.ids.add(row)
        self.table.append(vars(as_pair(prompt, *answers)), columns, self.source.name, row.where)
        self.account.keep([*prompt.messages, *answers], prompt.num_left_out, prompt.kept_aside)

    def finish(self, sample: int | None, seed: int | None) -> tuple[datasets.Dataset, PreferenceReport]:
        ids = self.ids.ids
        if not len(ids):
            raise self.account.nothing_usable([self.source.name])
        assert self.format is not None, "a usable row has a format"
        table = self.table.finish(ids.column)
        if sample is not None:
            assert seed is not None, "a draw needs a seed"
            table = filtered(table, self._drawn(ids, sample, seed))
            if sample < len(ids):
                self.account.drops["not_sampled"] = len(ids) - sample
        account = self.account.closed(table.num_rows, self.table.left_out, self.table.json_columns)
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
