"""Conversations as a stage's model reads them, prepared on disk, and what is counted on the way."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from deita_train.data.no_rows import no_row_left
from deita_train.data.rendering import load_tokenizer
from deita_train.inference.row_file import IDS, IDS_TYPE, LABELS, RowFile, RowWriter
from deita_train.stages.context import StageContext
from deita_train.stages.inference.shared_rows import shared_rows
from deita_train.stages.refusals import Refusals
from deita_train.stages.row_limit import told_limit
from deita_train.stages.rows import conversation_row
from deita_train.stages.stage_model import model_path, trusts_code
from deita_train.training.rows import silence

_POSITION = "position"


@dataclass(frozen=True)
class RenderedTable:
    """Conversations as a stage's model reads them.

    Attributes:
        rows: those that the template can write, cut on the right, in the table's order; with `labels` where answers
            are marked.
        refused: the others, by position in the table, with the reason.
        silent: of the rows without a token to measure, how many there are by reason; empty where none are marked.
        truncated: how many rows were cut.
        as_text: how many were written as text.
    """

    rows: RowFile
    refused: dict[int, str]
    silent: Counter[str]
    truncated: int
    as_text: int

    @property
    def positions(self) -> np.ndarray:
        """The positions of the rows in the table, int64."""
        return self.rows.numbers(_POSITION)

    def check_measurable(self) -> None:
        """Refuse a stage of which no row is left to measure.

        Raises:
            UserError: with the number of rows by reason.
        """
        check_measurable(Counter(self.refused.values()) + self.silent, len(self.rows) - self.silent.total())


def check_measurable(left_out: Counter[str], num_left: int) -> None:
    """Refuse a stage of which no row is left to measure.

    Args:
        left_out: the rows that the template cannot write or that have nothing to measure, by reason.
        num_left: the others.

    Raises:
        UserError: with the number of rows by reason.
    """
    if num_left == 0:
        raise no_row_left("is left to measure", left_out)


def rendered_rows(context: StageContext, table: datasets.Dataset, file: str, *, labelled: bool = True) -> RenderedTable:
    """Write all conversations, as the stage's model reads them, to a file among the prepared data.

    Raises:
        UserError: the template cannot write more rows than the recipe allows.
    """
    refusals = Refusals.of(context)
    tokenizer = load_tokenizer(
        str(model_path(context)), context.identity["chat_template"], trust_code=trusts_code(context.identity)
    )
    limit = told_limit(context).tokens

    def write() -> dict[str, Any]:
        return _written(context, refusals, table, tokenizer, limit, context.prepared_dir / file, labelled=labelled)

    about = {"rows": "conversations", "limit": limit, "labelled": labelled, "as_text": refusals.writes_text}
    facts = shared_rows(context, tokenizer, about, [file], write)
    refusals.take_over(facts["refusals"], len(table))
    refused = {int(number): reason for number, reason in facts["refused"].items()}
    rows = RowFile(context.prepared_dir / file)
    return RenderedTable(rows, refused, Counter(facts["silent"]), facts["truncated"], refusals.as_text)


def _written(
    context: StageContext,
    refusals: Refusals,
    table: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    file: Path,
    *,
    labelled: bool,
) -> dict[str, Any]:
    """Write the rows; what is known of them, in JSON."""
    render = partial(conversation_row, tokenizer, max_length=limit, labelled=labelled, **refusals.how)
    refused: dict[str, str] = {}
    silent: Counter[str] = Counter()
    truncated = 0
    columns = {_POSITION: pa.int64(), IDS: IDS_TYPE, **({LABELS: IDS_TYPE} if labelled else {})}
    with RowWriter(file, columns) as writer:
        for number, _, row in refusals.rows_of(context, table, render):
            if row is None:
                refused[str(number)] = refusals.last_reason
                continue
            writer.append(position=number, input_ids=row.input_ids, labels=row.labels)
            truncated += row.truncated
            reason = silence(row) if labelled else None
            silent.update([] if reason is None else [reason])
    return {"refused": refused, "silent": silent, "truncated": truncated, "refusals": refusals.told()}
