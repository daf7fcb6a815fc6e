"""Batch inference over a table, shared by its stages: device and ranks of the launch, batches, shards."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs
from transformers import PreTrainedModel

from deita_train.data.rendering import IGNORED
from deita_train.errors import UserError
from deita_train.inference.batch_inference import Pass
from deita_train.inference.batches import (
    BatchPlan,
    batches_of_part,
    padding_share,
    plan_batches,
    plan_groups,
    read_plan,
    share_batches,
    write_plan,
)
from deita_train.inference.cpu_bfloat16 import OF_A_PASS, refuse_slow_bfloat16
from deita_train.inference.forward import check_logits, pad_batch, pad_right, summed_loss
from deita_train.inference.row_file import LABELS, RowFile
from deita_train.inference.shards import Columns, check_shards, collect, remove_leftovers, split_batches
from deita_train.inference.speed import Speed, flops_per_token, peak_flops, speed_metrics
from deita_train.models.model_shape import automatic_batch_tokens, load_config
from deita_train.stages.context import StageContext
from deita_train.stages.stage_model import load_stage_model, model_path, trusts_code

PLAN = "batches.npz"
ROWS = "rows.arrow"
# Ranks meet only at the end; the slowest may arrive hours after the first.
_MEETING_TIMEOUT = timedelta(days=7)
SHARDS = "shards"
# Larger batches do not fit a core's cache: with four times as many tokens benchmarks/scoring.py is a quarter slower.
_CPU_BATCH_TOKENS = 4_096
_LOG_SECONDS = 30.0


def start_ranks(context: StageContext) -> torch.device:
    """The device of this rank, after checking that the launch is the promised one."""
    if context.world_size == 1:
        return torch.device("cpu" if context.use_cpu else "cuda")
    timeout = InitProcessGroupKwargs(timeout=_MEETING_TIMEOUT).to_kwargs()
    state = PartialState(cpu=context.use_cpu, **timeout)
    got = (state.num_processes, str(state.distributed_type.name))
    promised = (context.runtime["launch"]["num_processes"], context.distributed_type)
    # Inference shards no model, so under an FSDP file its ranks are plain ones.
    if got != promised and got != (promised[0], promised[1].replace("FSDP", "MULTI_GPU")):
        raise UserError(
            f"{context.label}: the launch promised {promised[0]} ranks of {promised[1]}, and {got[0]} of {got[1]} are "
            "at work. Check the launch file against this machine's devices."
        )
    device: torch.device = state.device
    return device


def load_pass_model(context: StageContext, device: torch.device, *, head: bool) -> PreTrainedModel:
    """The stage's model, if its dtype is not refused for the prepared batches (`check_dtype`)."""
    model = load_stage_model(context, device, head=head)
    check_dtype(context, flops_per_token(model))
    return model


def check_dtype(context: StageContext, flops: int | None) -> None:
    """Refuse hours in bfloat16 on a CPU that takes minutes in float32; call it before the model computes anything.

    Args:
        context: of a stage whose batches are planned.
        flops: operations per token, None if unknown.

    Raises:
        UserError: with the measured ratio of the two precisions.
    """
    if flops is not None and context.use_cpu and context.identity["dtype"] == "bfloat16":
        tokens = int(read_plan(context.prepared_dir / PLAN).lengths.sum(dtype=np.int64))
        refuse_slow_bfloat16(flops * tokens / context.world_size, OF_A_PASS)


@dataclass(frozen=True)
class PassResult:
    """The columns of all items, [N] or [N, D], in the order of the prepared rows, and metrics."""

    columns: Columns
    metrics: dict[str, Any]


def run_pass(
    context: StageContext,
    model: PreTrainedModel | None,
    compute: Callable[[Sequence[int]], Columns],
    columns: Sequence[str],
) -> PassResult | None:
    """Compute every missing batch of the prepared plan; returns the result on rank 0 once all ranks are done.

    `compute` maps positions to the named columns. With `model`, the share of the GPU's peak is measured too. Ranks wait
    for each other only at the end; at the start, rank 0 tells them which batches are missing. Of a stage in parts, one
    process computes one of them, and the result is that of the last one.
    """
    plan = read_plan(context.prepared_dir / PLAN)
    shard_dir = context.work_dir / SHARDS
    speeds = _compute_missing(context, plan, model, compute, columns)
    if context.part is not None:
        of_parts = context.part.join(speeds[0])
        if of_parts is None:
            return None
        # Of all parts together: a shard may have been damaged since its part was done.
        late = _compute_missing(replace(context, part=None), plan, model, compute, columns)
        speeds = [speed for speed in (*of_parts, *late) if speed.tokens] or late
    if context.rank != 0:
        return None
    metrics = {
        **({} if context.part is None else {"parts": context.part.of}),
        "tokens": int(plan.lengths.sum(dtype=np.int64)),
        "real_token_share": 1 - padding_share(plan.lengths, plan.batches),
        "max_batch_tokens": plan.max_batch_tokens,
        "split_batches": split_batches(shard_dir),
        **speed_metrics(speeds),
    }
    return PassResult(collect(shard_dir, len(plan.lengths)), metrics)


def _compute_missing(
    context: StageContext,
    plan: BatchPlan,
    model: PreTrainedModel | None,
    compute: Callable[[Sequence[int]], Columns],
    columns: Sequence[str],
) -> list[Speed]:
    """Compute this rank's share of the missing batches, and wait for the other ranks; the speed of each."""
    shard_dir = context.work_dir / SHARDS
    missing = agree_on_missing(context, plan, shard_dir, columns)
    numbers = share_batches({number: plan.cost(number) for number in missing}, context.world_size)[context.rank]
    speed = Speed()
    if model is not None:
        speed = Speed(flops_per_token(model), peak_flops(model.device, model.dtype))
    watch = _Watch(context, plan, missing, numbers, speed)
    part = "" if context.part is None else context.part.file_name
    Pass(plan, shard_dir, compute, speed, watch.tick, part=part).run(numbers)
    if numbers:
        watch.write_line()
    return gathered(context, speed)


def agree_on_missing(context: StageContext, plan: BatchPlan, shard_dir: Path, columns: Sequence[str]) -> list[int]:
    """The batches that no shard holds, of a part those of its own.

    Rank 0 looks and removes untrusted shards before it tells the others. Until then no rank of this attempt writes, and
    ranks of an earlier one are dead, because this attempt holds their lock. Other parts write other batches.
    """
    missing: list[int] = []
    if context.rank == 0:
        part = context.part
        own = None if part is None else batches_of_part(plan, part.number, part.of)
        name = "" if part is None else part.file_name
        done, distrusted = check_shards(shard_dir, plan, columns, own, name)
        for path, reason in distrusted.items():
            log(f"{path} is not trusted: {reason}. It is removed, and its batches are computed again.")
        remove_leftovers(shard_dir, distrusted, own)
        wanted = range(len(plan.batches)) if own is None else sorted(own)
        missing = [number for number in wanted if number not in done]
    return from_rank_0(context, missing)


def from_rank_0(context: StageContext, value: Any) -> Any:
    """The value that rank 0 has, on every rank."""
    message = [value]
    if context.world_size > 1:
        torch.distributed.broadcast_object_list(message, src=0)
    return message[0]


def gathered(context: StageContext, value: Any) -> list[Any]:
    """Every rank's value, once all ranks are here."""
    values = [value] * context.world_size
    if context.world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


class _Watch:
    """Reports progress to the run and, if the output is not a terminal, to the log from time to time."""

    def __init__(
        self, context: StageContext, plan: BatchPlan, missing: Sequence[int], numbers: Sequence[int], speed: Speed
    ) -> None:
        self._context = context
        self._speed = speed
        part = context.part
        batches = range(len(plan.batches)) if part is None else batches_of_part(plan, part.number, part.of)
        self._total = sum(map(plan.tokens, batches))
        self._missing = sum(plan.tokens(number) for number in missing)
        self._own = sum(plan.tokens(number) for number in numbers)
        self._rows = sum(len(plan.batches[number]) for number in numbers)
        self._written = time.monotonic()
        context.progress.update(self._total - self._missing, self._total, "tokens")

    def tick(self) -> None:
        """Call after each batch. Assumes that the other ranks are as far as this one."""
        left = self._missing * (self._own - self._speed.tokens) // self._own
        self._context.progress.update(self._total - left, self._total, "tokens", self._words())
        if not sys.stdout.isatty() and time.monotonic() - self._written > _LOG_SECONDS:
            self.write_line()

    def write_line(self) -> None:
        """Write a line to this rank's log."""
        self._written = time.monotonic()
        log(f"rank {self._context.rank}: {self._words()}")

    def _words(self) -> str:
        each = " on each rank" if self._context.world_size > 1 else ""
        return f"{self._speed.rows:,} of {self._rows:,} rows, {self._speed}{each}"


def log(line: str) -> None:
    """Write a line to this rank's log, which is its standard output."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def plan_pass(
    context: StageContext,
    lengths: Sequence[int] | np.ndarray,
    facts: dict[str, Any],
    groups: np.ndarray | None = None,
) -> None:
    """Plan batches over rows of these lengths, and write them with `facts` found by the preparation.

    With `groups`, the group of each row, a batch has rows of one group, and the batches of lower groups come first.
    """
    counts = np.asarray(lengths, dtype=np.int32)
    max_batch_tokens = batch_tokens(context, int(counts.max(initial=0)))
    batches = (
        plan_batches(counts, max_batch_tokens) if groups is None else plan_groups(counts, groups, max_batch_tokens)
    )
    plan = BatchPlan(batches, counts, max_batch_tokens, facts)
    write_plan(context.prepared_dir / PLAN, plan)


def batch_tokens(
    context: StageContext, longest: int, estimate: Callable[[Any, str, int, int], int] = automatic_batch_tokens
) -> int:
    """As the recipe states, else what fits in this machine's GPU (rank 0's) by `estimate`."""
    stated: int | None = context.runtime["max_batch_tokens"]
    if stated is not None:
        return stated
    if context.use_cpu:
        return _CPU_BATCH_TOKENS
    if not torch.cuda.is_available():
        raise UserError(
            f"{context.label}: the launch needs a GPU, and torch finds none. Check the driver, or the launch."
        )
    config = load_config(model_path(context), trusts_code(context.identity))
    free_bytes, _ = torch.cuda.mem_get_info()
    return estimate(config, context.identity["dtype"], free_bytes, longest)


def prepare_rows(context: StageContext, truncated: int, facts: dict[str, Any]) -> None:
    """Plan batches over the rows in `ROWS`, with `facts` found by the preparation."""
    plan_pass(context, RowFile(context.prepared_dir / ROWS).lengths, {**facts, "truncated": truncated})


@dataclass(frozen=True)
class TokenLosses:
    """Losses of all rows.

    Attributes:
        sums: negative log-likelihood summed over each row's labelled tokens, float64 [N].
        counts: number of labelled tokens, int64 [N].
        metrics: of the inference and its input.
        device: type of the device.
    """

    sums: np.ndarray
    counts: np.ndarray
    metrics: dict[str, Any]
    device: str


def token_losses(context: StageContext) -> TokenLosses | None:
    """The losses of the prepared rows under the stage's model; None on other ranks than 0."""
    return losses_under(context, load_pass_model(context, start_ranks(context), head=True))


def losses_under(context: StageContext, model: PreTrainedModel) -> TokenLosses | None:
    """The same with the stage's model, already loaded on this rank's device."""
    device = model.device
    table = RowFile(context.prepared_dir / ROWS)
    check_logits(model, table.tokens(0), device)

    def compute(positions: Sequence[int]) -> Columns:
        batch = pad_batch(table.rows(positions), device)
        wanted = pad_right(table.rows(positions, LABELS), IGNORED)
        loss, tokens = summed_loss(model, batch, wanted.to(device))
        return {"loss": loss, "tokens": tokens}

    result = run_pass(context, model, compute, ("loss", "tokens"))
    if result is None:
        return None
    metrics = {**result.metrics, "truncated": truncated_rows(context), **rows_as_text(context)}
    return TokenLosses(result.columns["loss"], result.columns["tokens"], metrics, device.type)


def truncated_rows(context: StageContext) -> int:
    """Number of prepared rows that were cut at `max_length`."""
    truncated: int = read_plan(context.prepared_dir / PLAN).facts["truncated"]
    return truncated


def rows_as_text(context: StageContext) -> dict[str, int]:
    """The metric of how many rows were written as text, of a stage that renders rows by a chat template."""
    facts = read_plan(context.prepared_dir / PLAN).facts
    # What an earlier version prepared lacks the number.
    return {"rows_as_text": facts["as_text"]} if "as_text" in facts else {}
