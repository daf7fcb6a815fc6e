"""DEITA's own selection method."""

import torch

from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.repr_filter import Trace, repr_filter


def deita(
    candidates: Candidates, budget: int, *, earlier: Trace | None, device: torch.device | str, group: Group | None
) -> Trace:
    """Walks down the scores with the Repr Filter (DEITA, Liu et al. 2023, section 2.5); arguments as there."""
    assert candidates.embeddings is not None
    return repr_filter(
        candidates.embeddings,
        candidates.ids,
        candidates.scores,
        budget=budget,
        threshold=candidates.settings.threshold,
        center=candidates.settings.center,
        mean=candidates.mean,
        earlier=earlier,
        device=device,
        group=group,
    )
