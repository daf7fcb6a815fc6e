"""What the passes over a table share: the device and ranks of the launch, the batches, the shards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs

from deita_train.data.rendering import IGNORED, load_tokenizer
from deita_train.errors import UserError
from deita_train.inference.batches import padding_share, plan_batches
from deita_train.inference.forward import check_plain_head, load_model, pad_batch, summed_loss
from deita_train.inference.passes import Columns, Pass, collect, read_plan, write_plan
from deita_train.stages.context import StageContext
from deita_train.stages.models import model_path
from deita_train.stages.rows import conversation_row

PLAN = "batches.json"
ROWS = "rows.parquet"
# Ranks only meet at the end of a pass; the slowest may come hours after the first.
_MEETING_TIMEOUT = timedelta(days=7)


def start_ranks(context: StageContext) -> torch.device:
    """The device of this rank, after checking that the launch gave what it promised."""
    if context.world_size == 1:
        return torch.device("cpu" if context.use_cpu else "cuda")
    timeout = InitProcessGroupKwargs(timeout=_MEETING_TIMEOUT).to_kwargs()
    state = PartialState(cpu=context.use_cpu, **timeout)
    got = (state.num_processes, str(state.distributed_type.name))
    promised = (context.settings["launch"]["num_processes"], context.distributed_type)
    # A pass shards no model, so under an FSDP file its ranks are plain ones.
    if got != promised and got != (promised[0], promised[1].replace("FSDP", "MULTI_GPU")):
        raise UserError(
            f"{context.label}: the launch promised {promised[0]} ranks of {promised[1]}, and {got[0]} of {got[1]} are "
            "at work. Check the launch file against this machine's devices."
        )
    device: torch.device = state.device
    return device


def run_pass(context: StageContext, compute: Callable[[Sequence[int]], Columns]) -> bool:
    """Compute every missing batch of the prepared plan; True on rank 0 once all ranks are done."""
    plan = read_plan(context.prepared_dir / PLAN)
    Pass(
        batches=plan["batches"],
        shard_dir=context.work_dir / "shards",
        rank=context.rank,
        world_size=context.world_size,
        compute=compute,
        on_progress=lambda done, total: context.progress.update(min(done, total), total, "batches"),
    ).run()
    if context.world_size > 1:
        PartialState().wait_for_everyone()
    return context.rank == 0


def render_rows(context: StageContext, table: datasets.Dataset) -> None:
    """Prepare a pass over whole conversations: ids and labels of every row, the planned batches, the counts."""
    tokenizer = load_tokenizer(str(model_path(context)), context.config["chat_template"])
    rendered = []
    for number, row in enumerate(table):
        rendered.append(conversation_row(tokenizer, row, context.config["max_length"]))
        context.progress.update(number + 1, len(table), "rows rendered")
    truncated = sum(row.truncated for row in rendered)
    prepare_rows(context, [row.input_ids for row in rendered], [row.labels for row in rendered], truncated)


def prepare_rows(context: StageContext, input_ids: list[list[int]], labels: list[list[int]], truncated: int) -> None:
    """Keep ids and labels of every row, and plan the batches over them."""
    columns = {
        "input_ids": pa.array(input_ids, pa.list_(pa.int32())),
        "labels": pa.array(labels, pa.list_(pa.int32())),
    }
    pq.write_table(pa.table(columns), context.prepared_dir / ROWS)
    lengths = [len(ids) for ids in input_ids]
    batches = plan_batches(lengths, context.settings["max_batch_tokens"])
    facts = {"tokens": sum(lengths), "truncated": truncated, "padding_share": padding_share(lengths, batches)}
    write_plan(context.prepared_dir / PLAN, batches, facts)


@dataclass(frozen=True)
class TokenLosses:
    """Negative log-likelihood summed over each row's labelled tokens, float64 [N], and their number, int64 [N]."""

    sums: np.ndarray
    counts: np.ndarray
    device: str


def token_losses(context: StageContext) -> TokenLosses | None:
    """The losses of the prepared rows under the stage's model; None on ranks other than 0."""
    device = start_ranks(context)
    table = pq.read_table(context.prepared_dir / ROWS)
    rows, labels = table["input_ids"].to_pylist(), table["labels"].to_pylist()
    model = load_model(str(model_path(context)), context.config["dtype"], device, head=True)
    check_plain_head(model, rows[0], device)

    def compute(positions: Sequence[int]) -> Columns:
        batch = pad_batch([rows[position] for position in positions], device)
        wanted = torch.full_like(batch.input_ids, IGNORED)
        for index, position in enumerate(positions):
            wanted[index, : len(labels[position])] = torch.tensor(labels[position], device=device)
        loss, tokens = summed_loss(model, batch, wanted)
        return {"loss": loss, "tokens": tokens}

    if not run_pass(context, compute):
        return None
    results = collect(context.work_dir / "shards", len(rows))
    return TokenLosses(results["loss"], results["tokens"], device.type)
