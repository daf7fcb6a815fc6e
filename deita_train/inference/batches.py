"""Batches by token budget, planned once from the lengths alone, so that every world size computes the same ones."""

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Group items so that rows x longest length stays within `max_batch_tokens`, longest items first.

    Sorted by (length descending, position), so padding is small and an out-of-memory shows in the first batch. An item
    longer than the budget gets a batch of its own. Returns positions; every position exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    batches: list[list[int]] = []
    for position in order:
        current = batches[-1] if batches else None
        if current is not None and lengths[current[0]] * (len(current) + 1) <= max_batch_tokens:
            current.append(position)
        else:
            batches.append([position])
    return batches


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of computed tokens that are padding."""
    computed = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / computed if computed else 0.0
