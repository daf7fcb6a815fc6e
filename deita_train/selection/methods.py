"""The selection methods by name, and the one entry to all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from deita_train.errors import UserError
from deita_train.scoring.evol_score import OverTurns
from deita_train.selection import usable
from deita_train.selection.baselines import clusters, coverage, ranking, tags
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.needs import needs_of
from deita_train.selection.repr_filter.process_group import Group
from deita_train.selection.repr_filter.repr_filter import Trace, repr_filter
from deita_train.selection.repr_filter.unit_rows import name_rows
from deita_train.selection.usable import IN_WORDS, Reasons, Unusable


@dataclass(frozen=True)
class Method:
    """A selection method: the function that selects, and which rows it cannot rank. ``needs.py`` says what it reads."""

    select: Callable[[Candidates], Trace]
    unusable: Unusable = usable.nothing


def _deita(candidates: Candidates) -> Trace:
    """Down the scores with the Repr Filter (DEITA, Liu et al. 2023, section 2.5)."""
    assert candidates.embeddings is not None
    return repr_filter(
        candidates.embeddings,
        candidates.ids,
        candidates.scores,
        budget=candidates.budget,
        threshold=candidates.threshold,
        center=candidates.center,
        earlier=candidates.earlier,
        device=candidates.device,
        group=candidates.group,
    )


METHODS: dict[str, Method] = {
    "deita": Method(_deita, usable.no_score),
    "evol_score": Method(ranking.evol_score, usable.no_evol_score),
    "complexity": Method(ranking.complexity, usable.no_complexity),
    "quality": Method(ranking.quality, usable.no_quality),
    "random": Method(ranking.random),
    "longest_response": Method(ranking.longest_response),
    "longest_instruction": Method(ranking.longest_instruction),
    "direct_score": Method(ranking.direct_score, usable.no_value),
    "perplexity": Method(ranking.perplexity, usable.no_value),
    "ifd": Method(ranking.ifd, usable.no_ifd_below_one),
    "instag": Method(tags.instag, usable.no_tags),
    "mig": Method(tags.mig, usable.no_tags_or_score),
    "k_center": Method(coverage.k_center),
    "kmeans": Method(clusters.kmeans, usable.no_score),
    "facility_location": Method(coverage.facility_location, usable.no_weighed_score),
    "whole_pool": Method(ranking.whole_pool),
}


def select_rows(
    method: str,
    rows: datasets.Dataset,
    *,
    budget: int | None,
    embeddings: np.ndarray | None = None,
    seed: int | None = None,
    threshold: float = 0.9,
    center: bool = False,
    score: str = "evol",
    column: str | None = None,
    order: str = "highest",
    clusters: int | None = None,
    quality_weight: float = 0.5,
    label_similarity: float = 0.9,
    score_turns: OverTurns = "sum",
    counted_turns: Sequence[Sequence[bool]] | None = None,
    earlier: Trace | None = None,
    device: torch.device | str = "cpu",
    group: Group | None = None,
) -> Trace:
    """Select up to ``budget`` rows by one of ``METHODS``, whatever the order of the rows.

    A smaller budget selects a prefix of a larger one, but for `kmeans`, whose quotas depend on the budget.

    Args:
        method: a name in ``METHODS``.
        rows: the pool, with the column ``id`` and those the method reads (``messages``, ``column``, or
            ``complexity_scores`` and ``quality_scores`` with one score or null per user turn).
        budget: rows to keep at most; ``None`` keeps whatever the method lets pass.
        embeddings: ``[N, D]`` float32 or float16 in the order of ``rows``.
        seed: of `random` and `kmeans`.
        threshold: tau of the Repr Filter (paper 2.5).
        center: whether the mean of the pool is subtracted from the embeddings first.
        score: what is best where a method takes its choice: "evol", "complexity" or "quality".
        column: the column of numbers (`direct_score`, `perplexity`, `ifd`) or of tags (`instag`, `mig`).
        order: which `perplexity` goes first, "highest" or "lowest".
        clusters: of `kmeans`; ``None`` for the square root of half the number of rows.
        quality_weight: of the score in `facility_location`, from 0 to less than 1.
        label_similarity: lowest similarity, from more than 0 to 1, at which `mig` joins two labels.
        score_turns: whether a row's score is the "sum" (paper 2.5) or the "mean" over its turns.
        counted_turns: for each row which of its user turns the score counts; all when None.
        earlier: the trace of the same selection with another budget, of any method but `kmeans`. A larger one is cut;
            from a smaller one `deita` goes on, and the other methods begin anew. The result is the same without it.
        device: where `deita` multiplies, "cpu" or a CUDA device.
        group: the processes that carry out `deita` together, each with the same arguments; ``None`` for this one alone.

    Returns:
        The trace in the order of ``rows``. The methods without a diversity filter leave its similarities nan.

    Raises:
        UserError: an unknown method, an input that the method needs and does not have, a row that it cannot rank
            (``unusable_rows`` says which), or what the method itself raises.
    """
    if method not in METHODS:
        raise UserError(f"there is no selection method '{method}'; choose one of {', '.join(METHODS)}.")
    if budget is not None and budget < 1:
        raise UserError(f"budget is {budget}; it must be at least 1, or left out to keep as many rows as pass.")
    given = {"embeddings": embeddings is not None, "seed": seed is not None, "column": column is not None}
    missing = sorted(need for need in needs_of(method, quality_weight) if not given.get(need, True))
    if missing:
        raise UserError(
            f"selection method '{method}' needs {' and '.join(missing)}, which the selection was not given."
        )
    assert "launch" in needs_of(method, quality_weight) or (group is None and torch.device(device).type == "cpu"), (
        method
    )
    candidates = Candidates(
        rows,
        budget,
        embeddings=embeddings,
        seed=seed,
        threshold=threshold,
        center=center,
        score=score,
        column=column,
        order=order,
        clusters=clusters,
        quality_weight=quality_weight,
        label_similarity=label_similarity,
        score_turns=score_turns,
        counted_turns=counted_turns,
        earlier=earlier,
        device=device,
        group=group,
    )
    _refuse_unusable(METHODS[method].unusable(candidates), candidates.ids)
    if earlier is not None and method != "deita" and earlier.num_kept >= candidates.limit:
        assert method != "kmeans", "a smaller budget of kmeans is no prefix of a larger one"
        return trace_of(len(candidates.ids), earlier.kept[: candidates.limit])
    return METHODS[method].select(candidates)


def unusable_rows(
    method: str,
    rows: datasets.Dataset,
    *,
    score: str = "evol",
    column: str | None = None,
    quality_weight: float = 0.5,
    counted_turns: Sequence[Sequence[bool]] | None = None,
) -> Reasons:
    """For each row why ``method`` cannot rank it, a key of ``usable.IN_WORDS``, or None where it can.

    Raises:
        UserError: a column that the method reads is missing or holds something else.
    """
    candidates = Candidates(
        rows, score=score, column=column, quality_weight=quality_weight, counted_turns=counted_turns
    )
    return METHODS[method].unusable(candidates)


def _refuse_unusable(reasons: Reasons, ids: Sequence[str]) -> None:
    for reason in sorted({reason for reason in reasons if reason is not None}):
        found = np.array([place for place, of_row in enumerate(reasons) if of_row == reason])
        raise UserError(
            f"{len(found)} of {len(ids)} rows {IN_WORDS[reason]}: {name_rows(ids, found)}. Complete these rows, or "
            "remove them from the pool."
        )
