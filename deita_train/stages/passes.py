"""What the passes over a table share: the device and ranks of the launch, the batches, the shards."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs

from deita_train.errors import UserError
from deita_train.inference.passes import Columns, Pass, read_plan
from deita_train.stages.context import StageContext

PLAN = "batches.json"
# Ranks only meet at the end of a pass; the slowest may come hours after the first.
_MEETING_TIMEOUT = timedelta(days=7)


def start_ranks(context: StageContext) -> torch.device:
    """The device of this rank, after checking that the launch gave what it promised."""
    if context.world_size == 1:
        return torch.device("cpu" if context.use_cpu else "cuda")
    timeout = InitProcessGroupKwargs(timeout=_MEETING_TIMEOUT).to_kwargs()
    state = PartialState(cpu=context.use_cpu, **timeout)
    if state.num_processes != context.settings["launch"]["num_processes"]:
        raise UserError(
            f"{context.label}: the launch promised {context.settings['launch']['num_processes']} ranks and "
            f"{state.num_processes} are at work. Check the launch file against this machine's devices."
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
