"""FSDP on ranks without GPUs, for rehearsals and tests. accelerate selects it only where it finds several GPUs."""

from functools import wraps
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType


def let_fsdp_train_on_a_cpu() -> None:
    """Let accelerate select FSDP on several CPU ranks; what it does then needs no GPU.

    Without this, a configuration with `distributed_type: FSDP` and `use_cpu: true` trains as plain DDP. Call it before
    the training's arguments are built.
    """
    if getattr(PartialState.__init__, "__wrapped__", None) is not None:
        return  # this process has done it
    initialise = PartialState.__init__

    @wraps(initialise)
    def initialise_as_on_gpus(self: PartialState, *arguments: Any, **named: Any) -> None:
        initialise(self, *arguments, **named)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = initialise_as_on_gpus
