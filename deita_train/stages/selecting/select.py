"""Stage `select`: keep the best rows by the method, with the trace of every decision.

`data/` has the selected rows in rank order, `trace/` every row of the pool, without its text.
"""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from deita_train.budget import TOKENS
from deita_train.data.arrow_columns import arrow_column, iter_columns, with_arrow_column
from deita_train.data.as_text import message_text
from deita_train.data.json_text import holds_json
from deita_train.data.texts import TextColumn
from deita_train.errors import UserError
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.process_group import Group, ProcessGroup
from deita_train.selection.trace.trace_columns import attach_trace, keep_selected, with_reasons
from deita_train.selection.unrankable import Reasons
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.inference.batched_pass import start_ranks
from deita_train.stages.selecting.ranked_pool import candidates_of, counts, in_tokens, lengths_of, unranked
from deita_train.stages.selecting.seen_rows import SeenRows, not_embedded
from deita_train.stages.selecting.selection_metrics import selection_metrics
from deita_train.stages.selecting.shortfall import shortfall
from deita_train.stages.selecting.trained_lengths import TrainedLengths
from deita_train.stages.selecting.walk import Walked, walk
from deita_train.stages.selecting.whitened import PoolEmbeddings


def run(context: StageContext) -> StageResult | None:
    """Join what is known of each row, select, and write the selected rows and the trace.

    All ranks select together, and rank 0 writes.
    """
    device, group = _ranks(context)
    datasets.disable_caching()  # a map over a published table would leave its cache beside it
    context = replace(context, reusable=_reusable(context))
    lengths = lengths_of(context)
    if "matched" in context.parents:
        assert lengths is not None
        context = _matched(context, lengths)
    pool = candidates_of(context, lengths)
    rankable, reasons = _rankable(context, pool)
    seen = None
    if "embed" in context.parents:
        seen = SeenRows.among(rankable, context.parents["embed"])
        rankable = rankable if seen else _with_embeddings(context, rankable)
    tokens = lengths.tokens_of(rankable.ids) if lengths and in_tokens(context) else None
    walked = walk(context, rankable, tokens, len(pool.rows), device, group, seen)
    if context.rank != 0:
        return None
    drops = Counter(filter(None, reasons))
    dropped = f" ({counts(drops)})" if drops else ""
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


def _matched(context: StageContext, lengths: TrainedLengths) -> StageContext:
    """The context with a budget of as many training tokens as the selection that this one is matched with."""
    matched = datasets.load_from_disk(str(context.parents["matched"] / "data"))
    tokens = int(lengths.tokens_of(TextColumn(arrow_column(matched, "id"))).sum())
    if not tokens:
        raise UserError(f"{context.label}: compare.match: none of the rows that `select` kept can be trained on.")
    return replace(context, identity={**context.identity, "budget": {TOKENS: tokens}})


def _rankable(context: StageContext, pool: Candidates) -> tuple[Candidates, Reasons]:
    """The rows that the method can rank, and for each row of the pool why it cannot."""
    refused = not_embedded(context.parents["embed"], pool.ids) if "embed" in context.parents else None
    reasons = unranked(context, pool, refused)
    drops = Counter(reason for reason in reasons if reason is not None)
    if drops.total() == len(reasons):
        raise UserError(f"{context.label}: no row of the pool can be ranked: {counts(drops)}.")
    if drops:
        pool = pool.subset(np.flatnonzero([reason is None for reason in reasons]))
    return pool, reasons


def _with_embeddings(context: StageContext, pool: Candidates) -> Candidates:
    """The rows with what the method compares them by."""
    embedded = PoolEmbeddings.of(context)
    mean = embedded.mean() if pool.settings.center else None
    queries = embedded.queries() if "target" in context.parents else None
    return replace(pool, embeddings=embedded.rows(pool.ids), mean=mean, queries=queries)


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
