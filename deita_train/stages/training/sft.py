"""Stage `sft`: supervised fine-tuning on conversations, loss on the assistant's turns only."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import datasets

from deita_train.data.rendering import load_tokenizer
from deita_train.stages.architecture import check_outside_model
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.refusals import Refusals
from deita_train.stages.row_limit import told_limit
from deita_train.stages.rows import conversation_row
from deita_train.stages.stage_model import model_path
from deita_train.stages.training.adapter_merge import check_adapter, finish_adapter
from deita_train.stages.training.prepared_training import ROWS, train_prepared, write_count
from deita_train.stages.training.stop_tokens import check_end_of_turn, keep_end_of_turn, stop_at_end_of_turn
from deita_train.training.parity import public_split
from deita_train.training.rows import LabelledRow, write_training_rows


def prepare(context: StageContext) -> None:
    """Render every row once, except, with parity, those that the public code holds out."""
    check_adapter(context)
    check_outside_model(context)
    rows = datasets.load_from_disk(str(context.parents["data"] / "data"))
    check_end_of_turn(context)
    keep_end_of_turn(context, rows)
    held_out: list[int] = []
    if context.identity.get("parity"):
        trained, held_out = public_split(len(rows))
        rows = rows.select(trained)
    refusals = Refusals.of(context)
    count = write_training_rows(_rendered(context, rows, refusals), context.prepared_dir / ROWS, refusals.counts)
    count.held_out = len(held_out)
    count.refused = dict(refusals.counts)
    write_count(context, count, refusals.as_text)


def run(context: StageContext) -> StageResult | None:
    """Train, and write the model with the run's template."""
    return train_prepared(context, model_path(context), context.identity["chat_template"])


def finish(context: StageContext) -> dict[str, Any]:
    """Merge the adapter if the recipe says so, and make the model stop where an answer ends."""
    return {**finish_adapter(context), **stop_at_end_of_turn(context)}


def _rendered(context: StageContext, rows: datasets.Dataset, refusals: Refusals) -> Iterator[LabelledRow]:
    tokenizer = load_tokenizer(str(model_path(context)), context.identity["chat_template"])
    render = partial(
        conversation_row,
        tokenizer,
        max_length=told_limit(context).tokens,
        **refusals.how,
    )
    for _, _, rendered in refusals.rows_of(context, rows, render):
        if rendered is not None:
            yield rendered
