"""Embedding along the walk of the Repr Filter: block by block, until its budget is met."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets.table import InMemoryTable
from transformers import PreTrainedModel

from deita_train.data.embeddings import write_embeddings
from deita_train.data.texts import TextColumn, as_column
from deita_train.inference.batch_inference import Pass
from deita_train.inference.batches import BatchPlan, share_batches
from deita_train.inference.shards import Columns, allocate, shard_parts, split_batches
from deita_train.inference.speed import Speed, flops_per_token, peak_flops, speed_metrics
from deita_train.selection.repr_filter.block_walk import BlockWalk
from deita_train.stages.context import StageContext, StageResult
from deita_train.stages.facts import NOT_RANKED, NOT_REACHED
from deita_train.stages.inference.batched_pass import (
    SHARDS,
    agree_on_missing,
    from_rank_0,
    gathered,
    log,
    rows_as_text,
    run_pass,
    truncated_rows,
)
from deita_train.stages.inference.embedding_table import (
    STORED,
    VECTORS,
    Inputs,
    ids_of_inputs,
    leave_embeddings,
    pool_rows,
)
from deita_train.stages.inference.row_reuse import input_hash, reused_items
from deita_train.stages.inference.walk_order import GROUP_ROWS, WalkOrder
from deita_train.stages.selecting.seen_rows import REASON

Compute = Callable[[Sequence[int]], Columns]


def embed_rows(
    context: StageContext,
    inputs: Inputs,
    model: PreTrainedModel | None,
    compute: Compute,
    max_length: int | None,
    device: torch.device,
) -> StageResult | None:
    """Embed all rows, or those that the walk needs, and leave the table; the result on rank 0.

    Args:
        context: of the stage.
        inputs: what the preparation left.
        model: for the share of the GPU's peak; None for a model whose operations are not known.
        compute: maps positions of the plan to vectors.
        max_length: of the model, for the metrics.
        device: of this rank.
    """
    if "walk" in context.identity:
        return _embed_walked(context, inputs, model, compute, max_length, device)
    result = run_pass(context, model, compute, (VECTORS,))
    if result is None:
        return None
    return leave_embeddings(context, inputs, result, max_length, device.type)


def _embed_walked(
    context: StageContext,
    inputs: Inputs,
    model: PreTrainedModel | None,
    compute: Compute,
    max_length: int | None,
    device: torch.device,
) -> StageResult | None:
    """Embed a block of leading rows on all ranks, let rank 0 walk over them, and go on while it wants more."""
    plan, order = inputs.plan, WalkOrder.planned(inputs.plan)
    missing = np.array(agree_on_missing(context, plan, context.work_dir / SHARDS, (VECTORS,)), dtype=np.int64)
    group_of = _groups_of_batches(inputs, order)
    speed = Speed() if model is None else Speed(flops_per_token(model), peak_flops(model.device, model.dtype))
    watch = _Watch(context, plan, order, speed)
    ranks_pass = Pass(plan, context.work_dir / SHARDS, compute, speed, watch.tick)
    walk = _Walk.begin(context, inputs, order, device) if context.rank == 0 else None
    known = blocks = 0
    while True:
        wanted = from_rank_0(context, None if walk is None else walk.wanted())
        if wanted == known:
            break
        groups = group_of[missing]
        block = missing[(groups >= known // GROUP_ROWS) & (groups < -(-wanted // GROUP_ROWS))].tolist()
        numbers = share_batches({number: plan.cost(number) for number in block}, context.world_size)[context.rank]
        watch.begin(known, wanted, numbers, None if walk is None else walk.blocks.found)
        ranks_pass.run(numbers)
        gathered(context, None)
        if walk is not None:
            walk.go_on(wanted)
        known, blocks = wanted, blocks + 1
    speeds: list[Speed] = gathered(context, speed)
    if walk is None:
        return None
    computed = np.flatnonzero(group_of < -(-known // GROUP_ROWS))
    metrics = {"blocks": blocks, **_pass_metrics(context, plan, computed), **speed_metrics(speeds)}
    return _leave(context, inputs, walk, {"max_length": max_length, **metrics}, device.type)


def _groups_of_batches(inputs: Inputs, order: WalkOrder) -> np.ndarray:
    """The group of each batch, int64 [B]."""
    batches = inputs.plan.batches
    groups = order.groups(len(inputs.tokens))[inputs.plan.facts["missing"]]
    firsts: np.ndarray = groups[batches.order[batches.starts[:-1]]]
    return firsts


@dataclass
class _Walk:
    """Rank 0's walk, and the vectors in its order.

    Attributes:
        inputs: what the preparation left.
        order: of the walk.
        blocks: the walk over what is known.
        folder: where shards are, and the matrix.
        place_of: int64, the place in the walk of each row that has inputs, -1 for one that cannot be ranked.
        matrix: [W, D], a file of which only the rows embedded take space; None before the first is there.
        sources: where vectors that were not computed come from.
        source_of: ``[W]`` int32, which of these a row's vector comes from, by place in the walk; -1 for none.
    """

    inputs: Inputs
    order: WalkOrder
    blocks: BlockWalk
    folder: Path
    place_of: np.ndarray
    matrix: np.ndarray | None = None
    sources: list[str] = field(default_factory=list)
    source_of: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    _read: set[Path] = field(default_factory=set)

    @classmethod
    def begin(cls, context: StageContext, inputs: Inputs, order: WalkOrder, device: torch.device) -> "_Walk":
        """Before the first block, with the vectors that other artefacts have."""
        ids = TextColumn(TextColumn(ids_of_inputs(context, inputs)).in_one_piece().take(pa.array(order.rows)))
        threshold = context.runtime["walk"]["threshold"]
        blocks = BlockWalk(ids, order.scores, order.budget, threshold, order.tokens, device)
        place_of = np.full(len(inputs.tokens), -1, dtype=np.int64)
        place_of[order.rows] = np.arange(len(order.rows))
        walk = cls(inputs, order, blocks, context.work_dir / SHARDS, place_of)
        walk.source_of = np.full(len(order.rows), -1, dtype=np.int32)
        if len(inputs.plan.facts["missing"]) < len(inputs.tokens):
            for items, sources, values in reused_items(context):
                places = walk._put(items, values)
                walk._note(places, sources)
        return walk

    def wanted(self) -> int:
        """How many leading rows must be known: whole groups, as many as are known when the walk is over."""
        return min(len(self.order.rows), -(-self.blocks.wanted() // GROUP_ROWS) * GROUP_ROWS)

    def go_on(self, known: int) -> None:
        """Walk over the first `known` rows, all of which are in shards or were taken over."""
        for path in sorted({*self.folder.glob("*.parquet")} - self._read):
            for positions, columns in shard_parts(path):
                self._put(self.inputs.plan.facts["missing"][positions], columns[VECTORS])
            self._read.add(path)
        assert self.matrix is not None
        self.blocks.take(self.matrix[:known])
        kept, budget = self.blocks.found, self.blocks.budget
        unit = "rows" if self.order.tokens is None else "tokens"
        log(f"{known:,} of {len(self.order.rows):,} rows embedded: {kept:,} of {budget:,} {unit} kept")

    def _note(self, places: np.ndarray, sources: Sequence[str]) -> None:
        """Keep where the vectors of rows of the walk come from; -1 is the place of one that is not in it."""
        for place, source in zip(places.tolist(), sources, strict=True):
            if source not in self.sources:
                self.sources.append(source)
            if place >= 0:
                self.source_of[place] = self.sources.index(source)

    def _put(self, items: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Write vectors to their rows' places in the walk, -1 for rows that are not in it; returns these."""
        places: np.ndarray = self.place_of[items]
        if self.matrix is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            shape = (len(self.order.rows), values.shape[1])
            self.matrix = allocate(self.folder / "walked.matrix", shape, values.dtype)
        self.matrix[places[places >= 0]] = values[places >= 0]
        return places


class _Watch:
    """Reports to the run how far the block is that is being embedded."""

    def __init__(self, context: StageContext, plan: BatchPlan, order: WalkOrder, speed: Speed) -> None:
        self._context, self._plan, self._order, self._speed = context, plan, order, speed
        self._known = self._wanted = self._done_before = self._own = 0
        self._found: int | None = None

    def begin(self, known: int, wanted: int, numbers: Sequence[int], found: int | None) -> None:
        """A block begins, of which this rank computes the batches `numbers`."""
        self._known, self._wanted, self._found = known, wanted, found
        self._done_before, self._own = self._speed.tokens, sum(map(self._plan.tokens, numbers))

    def tick(self) -> None:
        """Call after each batch. Assumes that the other ranks are as far as this one."""
        share = (self._speed.tokens - self._done_before) / self._own
        done = self._known + int(share * (self._wanted - self._known))
        unit = "rows" if self._order.tokens is None else "tokens"
        words = (
            f"of {len(self._order.rows):,} in rank order, {self._found or 0:,} of {self._order.budget:,} {unit} kept, "
            f"{self._speed}"
        )
        self._context.progress.update(done, self._wanted, "rows", words)


def _pass_metrics(context: StageContext, plan: BatchPlan, numbers: np.ndarray) -> dict[str, Any]:
    """Of the batches that were computed."""
    longest = plan.batches.longest(plan.lengths)[numbers]
    padded = int((longest * plan.batches.sizes[numbers]).sum())
    tokens = int(plan.batches.totals(plan.lengths)[numbers].sum())
    return {
        "tokens": tokens,
        "real_token_share": tokens / padded if padded else 1.0,
        "max_batch_tokens": plan.max_batch_tokens,
        "split_batches": split_batches(context.work_dir / SHARDS),
    }


def _leave(context: StageContext, inputs: Inputs, walk: _Walk, metrics: dict[str, Any], device: str) -> StageResult:
    """Write the rows embedded, in the order of the walk, and for each row of the pool why it is not among them."""
    known, matrix = walk.blocks.num_known, walk.matrix
    assert matrix is not None
    rows = walk.order.rows[:known]
    hashes = [input_hash(inputs.tokens.tokens(int(row))) for row in rows]
    write_embeddings(context.data_dir, as_column(walk.blocks.ids).first(known), matrix[:known], {STORED.hashes: hashes})
    reasons = _reasons(context, inputs, walk)
    table = pa.table({"id": pool_rows(context).data.column("id"), REASON: pa.array(reasons, pa.string())})
    datasets.Dataset(InMemoryTable(table)).save_to_disk(str(context.work_dir / "trace"))
    drops = Counter(filter(None, reasons))
    codes = walk.source_of[:known]
    found = Counter(walk.sources[code] for code in codes[codes >= 0])
    counts = {
        "rows": len(inputs.tokens),
        "rows_embedded": known,
        "rows_saved": drops[NOT_REACHED] + drops[NOT_RANKED],
        "rows_seen": walk.blocks.num_seen,
        "dimensions": matrix.shape[1],
        "truncated": truncated_rows(context),
        **rows_as_text(context),
        "rows_reused": found.total(),
        "reused_from": dict(sorted(found.items())),
    }
    return StageResult(len(reasons), known, dict(drops), {**counts, **metrics}, device)


def _reasons(context: StageContext, inputs: Inputs, walk: _Walk) -> list[str | None]:
    """For each row of the pool why it has no embedding; None for one that has."""
    of_inputs = np.full(len(inputs.tokens), NOT_RANKED, dtype=object)
    of_inputs[walk.order.rows] = NOT_REACHED
    of_inputs[walk.order.rows[: walk.blocks.num_known]] = None
    left = iter(of_inputs.tolist())
    refused = inputs.refused
    num_rows = len(inputs.tokens) + len(refused)
    return [refused[place] if place in refused else next(left) for place in range(num_rows)]
