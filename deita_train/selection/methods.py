"""The selection methods by name, and the trace of a selection as columns of the dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from deita_train.errors import UserError
from deita_train.scoring.evol_score import evol_score, sum_scores
from deita_train.selection.repr_filter import Trace, repr_filter, walk_order

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Candidates:
    """The pool a method selects from, and the settings of the selection; all sequences in the order of the rows.

    Attributes:
        rows: dataset with ``id``, and with ``messages``, ``complexity_scores`` or ``quality_scores`` where the method
            reads them.
        budget: rows to keep at most; ``None`` for as many as the method lets pass.
        embeddings: ``[N, D]`` float32 or float16, for the methods that need them.
        seed: for the methods that draw at random.
        threshold: highest cosine similarity that the Repr Filter lets pass.
        center: whether the Repr Filter subtracts the mean of the pool.
        score: what the Repr Filter walks by: "evol", or one dimension alone.
    """

    rows: datasets.Dataset
    budget: int | None
    embeddings: np.ndarray | None
    seed: int | None
    threshold: float
    center: bool
    score: str = "evol"

    @property
    def ids(self) -> list[str]:
        """The row ids."""
        return list(self.rows["id"])


@dataclass(frozen=True)
class Method:
    """A selection method: what it reads (``"scores"``, ``"embeddings"``, ``"seed"``) and the function that selects."""

    needs: frozenset[str]
    select: Callable[[Candidates], Trace]


def top_rows(ids: Sequence[str], scores: np.ndarray, budget: int | None) -> Trace:
    """Keep the ``budget`` best of N scores (all if None), without a diversity filter; ties by id.

    Args:
        ids: N unique row ids.
        scores: ``[N]`` float64, higher is better.
        budget: rows to keep at most, at least 1.

    Raises:
        UserError: a score is nan, or the budget is below 1.
    """
    if budget is not None and budget < 1:
        raise UserError(f"budget is {budget}; it must be at least 1, or left out to keep the whole pool.")
    trace = Trace.empty(len(ids))
    kept = walk_order(ids, scores)[:budget]
    trace.selection_rank[kept] = np.arange(len(kept))
    return trace


def _column(candidates: Candidates, name: str) -> Sequence[Any]:
    if name not in candidates.rows.column_names:
        raise UserError(
            f"the selection needs the column '{name}' and the pool has only {candidates.rows.column_names}. "
            "Add the missing scores to the pool, or choose a method that does not read them."
        )
    return list(candidates.rows[name])


def _as_scores(scores: Sequence[float | None]) -> np.ndarray:
    """Scores ``[N]`` float64 with nan for null, which ``walk_order`` refuses by id."""
    return np.array([np.nan if score is None else score for score in scores], dtype=np.float64)


def _evol_scores(candidates: Candidates) -> np.ndarray:
    complexity = _column(candidates, "complexity_scores")
    quality = _column(candidates, "quality_scores")
    return _as_scores([evol_score(c, q) for c, q in zip(complexity, quality, strict=True)])


def ranking_scores(candidates: Candidates, score: str) -> np.ndarray:
    """`[N]` float64 by which rows are ranked: the evol score, or the sum over turns of one dimension; nan for null."""
    if score == "evol":
        return _evol_scores(candidates)
    return _as_scores([sum_scores(turns) for turns in _column(candidates, f"{score}_scores")])


def _deita(candidates: Candidates) -> Trace:
    assert candidates.embeddings is not None
    return repr_filter(
        candidates.embeddings,
        candidates.ids,
        ranking_scores(candidates, candidates.score),
        budget=candidates.budget,
        threshold=candidates.threshold,
        center=candidates.center,
    )


def _top_evol_score(candidates: Candidates) -> Trace:
    return top_rows(candidates.ids, ranking_scores(candidates, "evol"), candidates.budget)


def _top_complexity(candidates: Candidates) -> Trace:
    return top_rows(candidates.ids, ranking_scores(candidates, "complexity"), candidates.budget)


def _top_quality(candidates: Candidates) -> Trace:
    return top_rows(candidates.ids, ranking_scores(candidates, "quality"), candidates.budget)


def _random(candidates: Candidates) -> Trace:
    """A seeded permutation of the rows sorted by id, so that the order of the input does not matter."""
    ids = candidates.ids
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    scores = np.empty(len(ids), dtype=np.float64)
    scores[by_id] = np.random.default_rng(candidates.seed).permutation(len(ids))
    return top_rows(ids, scores, candidates.budget)


def _longest_response(candidates: Candidates) -> Trace:
    """Most characters over all assistant messages of the conversation."""
    lengths = [
        sum(len(message["content"]) for message in messages if message["role"] == "assistant")
        for messages in _column(candidates, "messages")
    ]
    return top_rows(candidates.ids, np.array(lengths, dtype=np.float64), candidates.budget)


def _whole_pool(candidates: Candidates) -> Trace:
    """Every row, by id: what a selection is compared with."""
    return top_rows(candidates.ids, np.zeros(len(candidates.ids)), None)


METHODS: dict[str, Method] = {
    "deita": Method(frozenset({"scores", "embeddings"}), _deita),
    "evol_score": Method(frozenset({"scores"}), _top_evol_score),
    "complexity": Method(frozenset({"scores"}), _top_complexity),
    "quality": Method(frozenset({"scores"}), _top_quality),
    "random": Method(frozenset({"seed"}), _random),
    "longest_response": Method(frozenset(), _longest_response),
    "whole_pool": Method(frozenset(), _whole_pool),
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
) -> Trace:
    """Select up to ``budget`` rows by one of ``METHODS``; a smaller budget selects a prefix of a larger one.

    Args:
        method: a name in ``METHODS``.
        rows: the pool, with the column ``id`` and those the method reads (``messages``, or ``complexity_scores`` and
            ``quality_scores`` with one score or null per user turn).
        budget: rows to keep at most; ``None`` keeps whatever the method lets pass.
        embeddings: ``[N, D]`` float32 or float16 in the order of ``rows``.
        seed: of the methods that draw at random.
        threshold: tau of the Repr Filter (paper 2.5).
        center: whether the Repr Filter subtracts the mean of the pool first.
        score: what `deita` walks by: "evol", "complexity" or "quality".

    Returns:
        The trace in the order of ``rows``. The methods without a diversity filter leave its similarities nan.

    Raises:
        UserError: an unknown method, an input that the method needs and does not have, a row without a score, or what
            ``repr_filter`` raises.
    """
    if method not in METHODS:
        raise UserError(f"there is no selection method '{method}'; choose one of {', '.join(METHODS)}.")
    given = {"embeddings": embeddings is not None, "seed": seed is not None}
    missing = sorted(need for need in METHODS[method].needs if not given.get(need, True))
    if missing:
        raise UserError(
            f"selection method '{method}' needs {' and '.join(missing)}, which the selection was not given."
        )
    return METHODS[method].select(Candidates(rows, budget, embeddings, seed, threshold, center, score))


def attach_trace(dataset: datasets.Dataset, trace: Trace, ids: Sequence[str]) -> datasets.Dataset:
    """Add what the walk decided as columns; rows stay in their order.

    ``selection_rank`` (int64, null if not selected), ``nearest_similarity`` (float32, null where the trace has nan) and
    ``blocked_by`` (id of the blocking row, or null). ``ids`` are the ids in the order of the trace.
    """
    assert list(dataset["id"]) == list(ids), "the trace is not in the order of the dataset's rows"

    def trace_of(batch_ids: Sequence[str], indices: Sequence[int]) -> dict[str, list[Any]]:
        ranks, nearest, blockers = trace.selection_rank, trace.nearest_similarity, trace.blocked_by
        return {
            "selection_rank": [int(ranks[i]) if ranks[i] >= 0 else None for i in indices],
            "nearest_similarity": [None if np.isnan(nearest[i]) else float(nearest[i]) for i in indices],
            "blocked_by": [ids[int(blockers[i])] if blockers[i] >= 0 else None for i in indices],
        }

    features = dataset.features.copy()
    features["selection_rank"] = datasets.Value("int64")
    features["nearest_similarity"] = datasets.Value("float32")
    features["blocked_by"] = datasets.Value("string")
    return dataset.map(
        trace_of,
        with_indices=True,
        batched=True,
        input_columns=["id"],
        features=features,
        load_from_cache_file=False,
        desc="attaching the selection",
    )


def keep_selected(dataset: datasets.Dataset, budget: int | None) -> datasets.Dataset:
    """The rows with ``selection_rank`` below ``budget`` (all that have a rank if None), in rank order."""

    def is_selected(rank: int | None) -> bool:
        return rank is not None and (budget is None or rank < budget)

    kept = dataset.filter(is_selected, input_columns=["selection_rank"], load_from_cache_file=False)
    return kept.sort("selection_rank", load_from_cache_file=False)


def nearest_summary(trace: Trace) -> dict[str, Any]:
    """Counts of the walk and quantiles of the similarity to the nearest row kept before, for a report.

    Returns:
        ``num_seen``, ``num_kept``, ``num_rejected`` (rows), and ``quantiles``: from "0" to "1", linearly interpolated
        over the rows that have a nearest kept row; null if there are none.
    """
    nearest = trace.nearest_similarity[~np.isnan(trace.nearest_similarity)].astype(np.float64)
    num_kept = int((trace.selection_rank >= 0).sum())
    num_rejected = int((trace.blocked_by >= 0).sum())
    values = np.quantile(nearest, QUANTILES).tolist() if len(nearest) else [None] * len(QUANTILES)
    return {
        "num_seen": num_kept + num_rejected,
        "num_kept": num_kept,
        "num_rejected": num_rejected,
        "quantiles": dict(zip((f"{q:g}" for q in QUANTILES), values, strict=True)),
    }
