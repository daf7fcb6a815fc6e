"""What the passes over a table share: the device and ranks of the launch, the batches, the shards."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs

from deita_train.data.rendering import load_tokenizer, render
from deita_train.errors import UserError
from deita_train.inference.batches import padding_share, plan_batches
from deita_train.inference.passes import Columns, Pass, read_plan, write_plan
from deita_train.stages.context import StageContext
from deita_train.stages.models import model_path

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
        rendered.append(render(tokenizer, row["messages"], context.config["max_length"]))
        context.progress.update(number + 1, len(table), "rows rendered")
    columns = {
        "input_ids": pa.array([row.input_ids for row in rendered], pa.list_(pa.int32())),
        "labels": pa.array([row.labels for row in rendered], pa.list_(pa.int32())),
    }
    pq.write_table(pa.table(columns), context.prepared_dir / ROWS)
    lengths = [len(row.input_ids) for row in rendered]
    batches = plan_batches(lengths, context.settings["max_batch_tokens"])
    truncated = sum(row.truncated for row in rendered)
    facts = {"tokens": sum(lengths), "truncated": truncated, "padding_share": padding_share(lengths, batches)}
    write_plan(context.prepared_dir / PLAN, batches, facts)
