"""The rows of a pool with what a selection ranks them by, and why some cannot be ranked: all but embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import datasets
import pyarrow.compute as pc

from deita_train.budget import TOKENS, form_of
from deita_train.data.arrow_columns import arrow_column
from deita_train.data.texts import TextColumn, places_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.settings import SelectionSettings
from deita_train.selection.strata import without_stratum
from deita_train.selection.unrankable import CONTAMINATED, IN_WORDS, Reasons, outside_limits, unrankable_rows
from deita_train.stages.context import StageContext
from deita_train.stages.row_limit import Readable, row_limit
from deita_train.stages.selecting.scored_pool import (
    scored_pool,
    with_answer_tokens,
    with_evol_score,
    with_selection_score,
)
from deita_train.stages.selecting.trained_lengths import TrainedLengths, read_trained_lengths
from deita_train.store.atomic_io import read_json


def lengths_of(context: StageContext) -> TrainedLengths | None:
    """The training tokens of the rows, where the selection counts them."""
    if "lengths" not in context.parents:
        return None
    lengths = context.parents["lengths"]
    readable = Readable(**read_json(lengths / "metrics.json")["readable"])
    return read_trained_lengths(lengths, row_limit(context.identity, readable).tokens)


def in_tokens(context: StageContext) -> bool:
    """Whether the budget is one of tokens."""
    budget = context.identity["budget"]
    return budget is not None and form_of(budget) == TOKENS


def candidates_of(context: StageContext, lengths: TrainedLengths | None) -> Candidates:
    """Every row of the pool, with its scores."""
    pool = Candidates(scored_pool(context), SelectionSettings.of_stage(context.identity))
    if context.identity.get("only_trained_turns"):
        assert lengths is not None
        pool = replace(pool, counted_turns=lengths.turns_of(pool.ids))
    if context.identity.get("unit") == "tokens":
        assert lengths is not None
        pool = replace(pool, rows=with_answer_tokens(pool, lengths.answers_of(pool.ids)))
    return replace(pool, rows=with_selection_score(replace(pool, rows=with_evol_score(pool))))


def unranked(context: StageContext, pool: Candidates, not_embedded: Reasons | None = None) -> Reasons:
    """For each row of the pool why it cannot be ranked; `not_embedded` says the same of what the embedder refused."""
    limited = outside_limits(pool, context.identity.get("between", {}))
    strata = without_stratum(pool, context.identity.get("strata"))
    columns = [
        _contaminated(context, pool.ids),
        unrankable_rows(pool),
        *([] if not_embedded is None else [not_embedded]),
        _not_trainable(context, pool.ids),
        limited,
        strata,
    ]
    return [next(filter(None, of_row), None) for of_row in zip(*columns, strict=True)]


def counts(drops: Mapping[str, int]) -> str:
    """`3 have no tags in the column, 2 ...`."""
    return ", ".join(f"{number} {IN_WORDS[reason]}" for reason, number in drops.items())


def _contaminated(context: StageContext, ids: Sequence[str]) -> Reasons:
    """For each row whether it repeats a question that the selection must not keep."""
    if "contamination" not in context.parents:
        return [None] * len(ids)
    table = datasets.load_from_disk(str(context.parents["contamination"] / "data"))
    places = places_of(ids, TextColumn(arrow_column(table, "id")))
    is_hit = pc.list_value_length(arrow_column(table, "hits")).to_numpy() > 0
    return [CONTAMINATED if hit else None for hit in is_hit[places].tolist()]


def _not_trainable(context: StageContext, ids: Sequence[str]) -> Reasons:
    """For each row whether it has no length, where the selection reads one."""
    if "lengths" not in context.parents:
        return [None] * len(ids)
    table = datasets.load_from_disk(str(context.parents["lengths"] / "data"))
    places = places_of(ids, TextColumn(arrow_column(table, "id")))
    return ["not_trainable" if place < 0 else None for place in places.tolist()]
