"""Floating-point operations of passes and trainings. Imports nothing heavy.

As everywhere here, two for each weight and token that are multiplied, without attention scores and padding: so the
shares of a peak that this project measures are defined (docs/performance.md), and so hours follow from them.
"""

from deita_train.cost.shape import Sizes


def pass_operations(sizes: Sizes, *, head: bool) -> int:
    """Of one token in a forward pass; with `head`, its logits are computed too."""
    return 2 * (sizes.trunk + (sizes.head if head else 0))


def training_operations(sizes: Sizes, adapter: int | None, *, recomputes: bool, frozen_layers: int = 0) -> int:
    """Of one token, forward and backward: six for each trained weight, four for each frozen one that a gradient passes.

    Args:
        sizes: the model's.
        adapter: weights of the adapter that is trained; None where the whole model is.
        recomputes: whether the layers are computed once more in the backward pass (activation checkpointing). The
            gradient then passes every layer.
        frozen_layers: layers under the lowest adapter: two for each of their weights.
    """
    multiplied = sizes.trunk + sizes.head
    again = 2 * (sizes.trunk + (adapter or 0)) if recomputes else 0
    if adapter is None:
        return 6 * multiplied + again
    passed_by = 0 if recomputes else 2 * sizes.weights_below(frozen_layers)
    return 4 * multiplied + 6 * adapter + again - passed_by
