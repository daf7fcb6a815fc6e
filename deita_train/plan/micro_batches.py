"""Trainings whose loss looks at a micro-batch as a whole: its size then decides what is learnt, and is in the key."""

from collections.abc import Mapping
from typing import Any

# They sort the pairs of a micro-batch.
_SORTING = frozenset({"aot", "aot_unpaired"})


def field_of_micro_batches(trainer: Mapping[str, Any]) -> str | None:
    """The trainer field by which the size of a micro-batch decides what is learnt; None if there is none.

    Args:
        trainer: the training's fields with their defaults.
    """
    losses = trainer.get("loss_type")
    if _SORTING & set([losses] if isinstance(losses, str) else losses or ()):
        return "loss_type"
    # The balance of the experts is measured over the tokens of a micro-batch. Without a number it is the model's own.
    return None if trainer["router_aux_loss_coef"] == 0 else "router_aux_loss_coef"
