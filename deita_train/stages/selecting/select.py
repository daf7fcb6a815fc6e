"""Stage `select`: keep the best rows by the method, with the trace of every decision.

`data/` has the selected rows in rank order, `trace/` every row of the pool, without its text.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from deita_train.budget import TOKENS, form_of
from deita_train.data.arrow_columns import arrow_column, iter_columns, with_arrow_column
from deita_train.data.as_text import message_text
from deita_train.data.json_text import holds_json
from deita_train.data.texts import TextColumn, places_of
from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.process_group import Group, ProcessGroup
from deita_train.selection.settings import SelectionSettings
from deita_train.selection.strata import without_stratum
from deita_train.selection.trace.trace_columns import attach_trace, keep_selected, with_reasons
from deita_train.selection.unrankable import CONTAMINATED, IN_WORDS, Reasons, outside_limits, unrankable_rows
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import start_ranks
from deita_train.stages.row_limit import Readable, row_limit
from deita_train.stages.selecting.scored_pool import (
    scored_pool,
    with_answer_tokens,
    with_evol_score,
    with_selection_score,
)
from deita_train.stages.selecting.selection_metrics import selection_metrics
from deita_train.stages.selecting.shortfall import shortfall
from deita_train.stages.selecting.trained_lengths import TrainedLengths, read_trained_lengths
from deita_train.stages.selecting.walk import Walked, walk
from deita_train.stages.selecting.whitened import PoolEmbeddings
from deita_train.store.atomic_io import read_json


def run(context: StageContext) -> StageResult | None:
    """Join what is known of each row, select, and write the selected rows and the trace.

    All ranks select together, and rank 0 writes.
    """
    device, group = _ranks(context)
    datasets.disable_caching()  # a map over a published table would leave its cache beside it
    context = replace(context, reusable=_reusable(context))
    lengths = _lengths(context)
    if "matched" in context.parents:
        assert lengths is not None
        context = _matched(context, lengths)
    pool = _candidates(context, lengths)
    rankable, reasons = _rankable(context, pool)
    tokens = lengths.tokens_of(rankable.ids) if lengths and _in_tokens(context) else None
    walked = walk(context, rankable, tokens, len(pool.rows), device, group)
    if context.rank != 0:
        return None
    drops = Counter(filter(None, reasons))
    dropped = f" ({_counts(drops)})" if drops else ""
    fewer = shortfall(context, rankable, tokens, walked, len(pool.rows), dropped, device)
    return _write(context, pool, reasons, walked, fewer, device)


def _ranks(context: StageContext) -> tuple[torch.device, Group | None]:
    """The device of this rank, and the ranks of the launch; without a launch one process on the CPU."""
    if "launch" not in context.runtime:
        return torch.device("cpu"), None
    device = start_ranks(context)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{context.label}: the launch needs a GPU, and torch finds none. Check the driver, or state "
            "select.launch: cpu."
        )
    return device, ProcessGroup(device) if context.world_size > 1 else None


def _reusable(context: StageContext) -> tuple[Path, ...]:
    """Those of rank 0: all ranks must continue the same walk, whatever is published or removed meanwhile."""
    if context.world_size == 1:
        return context.reusable
    shared = [context.reusable]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def _lengths(context: StageContext) -> TrainedLengths | None:
    if "lengths" not in context.parents:
        return None
    lengths = context.parents["lengths"]
    readable = Readable(**read_json(lengths / "metrics.json")["readable"])
    return read_trained_lengths(lengths, row_limit(context.identity, readable).tokens)


def _matched(context: StageContext, lengths: TrainedLengths) -> StageContext:
    """The context with a budget of as many training tokens as the selection that this one is matched with."""
    matched = datasets.load_from_disk(str(context.parents["matched"] / "data"))
    tokens = int(lengths.tokens_of(TextColumn(arrow_column(matched, "id"))).sum())
    if not tokens:
        raise UserError(f"{context.label}: compare.match: none of the rows that `select` kept can be trained on.")
    return replace(context, identity={**context.identity, "budget": {TOKENS: tokens}})


def _in_tokens(context: StageContext) -> bool:
    budget = context.identity["budget"]
    return budget is not None and form_of(budget) == TOKENS


def _candidates(context: StageContext, lengths: TrainedLengths | None) -> Candidates:
    """Every row of the pool, with its scores."""
    pool = Candidates(scored_pool(context), SelectionSettings.of_stage(context.identity))
    if context.identity.get("only_trained_turns"):
        assert lengths is not None
        pool = replace(pool, counted_turns=lengths.turns_of(pool.ids))
    if context.identity.get("unit") == "tokens":
        assert lengths is not None
        pool = replace(pool, rows=with_answer_tokens(pool, lengths.answers_of(pool.ids)))
    return replace(pool, rows=with_selection_score(replace(pool, rows=with_evol_score(pool))))


def _rankable(context: StageContext, pool: Candidates) -> tuple[Candidates, Reasons]:
    """The rows that the method can rank, with their embeddings, and for each row of the pool why it cannot."""
    limited = outside_limits(pool, context.identity.get("between", {}))
    strata = without_stratum(pool, context.identity.get("strata"))
    repeated = _contaminated(context, pool.ids)
    found = zip(repeated, unrankable_rows(pool), _lacking(context, pool.ids), limited, strata, strict=True)
    reasons = [next(filter(None, of_row), None) for of_row in found]
    drops = Counter(reason for reason in reasons if reason is not None)
    if drops.total() == len(reasons):
        raise UserError(f"{context.label}: no row of the pool can be ranked: {_counts(drops)}.")
    if drops:
        pool = pool.subset(np.flatnonzero([reason is None for reason in reasons]))
    if "embed" in context.parents:
        embedded = PoolEmbeddings.of(context)
        mean = embedded.mean() if pool.settings.center else None
        queries = embedded.queries() if "target" in context.parents else None
        pool = replace(pool, embeddings=embedded.rows(pool.ids), mean=mean, queries=queries)
    return pool, reasons


def _contaminated(context: StageContext, ids: Sequence[str]) -> Reasons:
    """For each row whether it repeats a question that the selection must not keep."""
    if "contamination" not in context.parents:
        return [None] * len(ids)
    table = datasets.load_from_disk(str(context.parents["contamination"] / "data"))
    places = places_of(ids, TextColumn(arrow_column(table, "id")))
    is_hit = pc.list_value_length(arrow_column(table, "hits")).to_numpy() > 0
    return [CONTAMINATED if hit else None for hit in is_hit[places].tolist()]


def _lacking(context: StageContext, ids: Sequence[str]) -> Reasons:
    """For each row why it has no embedding, or no length, where the selection reads one; None where it has both."""
    reasons: Reasons = [None] * len(ids)
    for parent, reason in (("embed", "not_embedded"), ("lengths", "not_trainable")):
        if parent in context.parents:
            table = datasets.load_from_disk(str(context.parents[parent] / "data"))
            for place in np.flatnonzero(places_of(ids, TextColumn(arrow_column(table, "id"))) < 0):
                reasons[place] = reasons[place] or reason
    return reasons


def _counts(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {IN_WORDS[reason]}" for reason, number in drops.items())


def _write(
    context: StageContext,
    pool: Candidates,
    reasons: Reasons,
    walked: Walked,
    fewer: Mapping[str, Any],
    device: torch.device,
) -> StageResult:
    """Write the selected rows and the trace."""
    rankable = np.array([place for place, reason in enumerate(reasons) if reason is None], dtype=np.int64)
    traced = attach_trace(pool.rows, walked.trace.within(rankable, len(reasons)), pool.ids)
    selected = keep_selected(traced, None)
    selected.save_to_disk(str(context.data_dir))
    with_reasons(_trace_table(traced), reasons).save_to_disk(str(context.work_dir / "trace"))
    left_out = {**Counter(filter(None, reasons)), "not_selected": len(rankable) - len(selected)}
    metrics = selection_metrics(context.identity, pool.rows, selected, walked.trace)
    return StageResult(
        rows_in=len(pool.rows),
        rows_out=len(selected),
        drops={reason: number for reason, number in left_out.items() if number},
        metrics={**metrics, **walked.metrics(), **fewer},
        device=device.type,
    )


def _trace_table(traced: datasets.Dataset) -> datasets.Dataset:
    """What became of every row and why, with the sizes of its text in place of the text and of columns of JSON."""
    turns, chars = array("q"), array("q")
    for (messages,) in iter_columns(traced, ["messages"]):
        turns.append(sum(message["role"] == "user" for message in messages))
        chars.append(sum(len(message_text(message)) for message in messages))
    json_columns = [name for name, feature in traced.features.items() if name != "messages" and holds_json(feature)]
    sizes = traced.remove_columns(["messages", *json_columns])
    for name, numbers in (("num_turns", turns), ("num_chars", chars)):
        sizes = with_arrow_column(sizes, name, pa.array(np.frombuffer(numbers, np.int64)), datasets.Value("int64"))
    return sizes
