"""Stage `dpo`: direct preference optimization with the log-probabilities of stage `reference` [paper 4]."""

from collections.abc import Iterator
from typing import Any

import datasets

from deita_train.data.arrow_columns import arrow_column
from deita_train.data.texts import TextColumn, TextIndex
from deita_train.stages.architecture import check_outside_model
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.intake.pairs import rendered_pairs
from deita_train.stages.refusals import Refusals
from deita_train.stages.stage_model import model_path
from deita_train.stages.training.adapter_merge import check_adapter, finish_adapter
from deita_train.stages.training.prepared_training import ROWS, train_prepared, write_count
from deita_train.stages.training.stop_tokens import keep_end_of_turn, stop_at_end_of_turn
from deita_train.training.rows import PairRow, write_pair_rows


def prepare(context: StageContext) -> None:
    """Render every pair once and join it with its reference by id."""
    check_adapter(context)
    check_outside_model(context)
    keep_end_of_turn(context, datasets.load_from_disk(str(context.parents["data"] / "data")))
    refusals = Refusals.of(context)
    count = write_pair_rows(_rows(context, refusals), context.prepared_dir / ROWS, refusals.counts)
    count.refused = dict(refusals.counts)
    write_count(context, count, refusals.as_text)


def run(context: StageContext) -> StageResult | None:
    """Train, and write the model with the run's template."""
    return train_prepared(context, model_path(context), context.identity["chat_template"], kind="dpo")


def finish(context: StageContext) -> dict[str, Any]:
    """Merge the adapter if the recipe says so, and make the model stop where an answer ends."""
    return {**finish_adapter(context), **stop_at_end_of_turn(context)}


def _rows(context: StageContext, refusals: Refusals) -> Iterator[PairRow]:
    reference = datasets.load_from_disk(str(context.parents["reference"] / "data"))
    index = TextIndex()
    index.extend(TextColumn(arrow_column(reference, "id")))
    chosen, rejected, chosen_tokens, rejected_tokens = (
        arrow_column(reference, name).to_numpy()
        for name in ("chosen_log_prob", "rejected_log_prob", "chosen_tokens", "rejected_tokens")
    )
    for row_id, pair in rendered_pairs(context, refusals):
        place = index.number_of(row_id)
        assert place is not None, f"{row_id} has no reference"
        tokens = (len(pair.chosen_ids), len(pair.rejected_ids))
        known = (chosen_tokens[place], rejected_tokens[place])
        assert tokens == known, f"{row_id}: the reference scored other ids"
        yield PairRow(row_id, pair, float(chosen[place]), float(rejected[place]))
