"""Methods that rank every row by one number and keep the first. A smaller budget keeps a prefix of a larger one."""

from collections.abc import Sequence

import numpy as np

from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace, walk_order


def top_rows(ids: Sequence[str], scores: np.ndarray, budget: int | None) -> Trace:
    """Keep the ``budget`` best of N scores (all if None), without a diversity filter; ties by id.

    Args:
        ids: N unique row ids.
        scores: ``[N]`` float64, higher is better.
        budget: rows to keep at most, at least 1.

    Raises:
        UserError: a score is nan.
    """
    return trace_of(len(ids), walk_order(ids, scores)[:budget])


def trace_of(num_rows: int, kept: Sequence[int] | np.ndarray) -> Trace:
    """The trace of a method that keeps these positions, the first in rank first, and compares nothing."""
    trace = Trace.empty(num_rows)
    trace.selection_rank[kept] = np.arange(len(kept))
    return trace


def evol_score(candidates: Candidates) -> Trace:
    """Highest evol score: DEITA without its diversity filter (Liu et al. 2023, sections 2.2 and 2.5)."""
    return top_rows(candidates.ids, candidates.scores_by("evol"), candidates.budget)


def complexity(candidates: Candidates) -> Trace:
    """Highest sum of complexity over the turns (DEITA, Liu et al. 2023, section 2.3)."""
    return top_rows(candidates.ids, candidates.scores_by("complexity"), candidates.budget)


def quality(candidates: Candidates) -> Trace:
    """Highest sum of quality over the turns (DEITA, Liu et al. 2023, section 2.4)."""
    return top_rows(candidates.ids, candidates.scores_by("quality"), candidates.budget)


def random(candidates: Candidates) -> Trace:
    """A seeded permutation of the rows sorted by id, so that the order of the input does not matter."""
    ids = candidates.ids
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    scores = np.empty(len(ids), dtype=np.float64)
    scores[by_id] = np.random.default_rng(candidates.seed).permutation(len(ids))
    return top_rows(ids, scores, candidates.budget)


def longest_response(candidates: Candidates) -> Trace:
    """Most characters over all assistant messages of the conversation (Zhao et al. 2024, "Long Is More")."""
    return top_rows(candidates.ids, _characters(candidates, "assistant"), candidates.budget)


def longest_instruction(candidates: Candidates) -> Trace:
    """Most characters over all user messages: the baseline "instruction length" of DEITA's Table 2."""
    return top_rows(candidates.ids, _characters(candidates, "user"), candidates.budget)


def _characters(candidates: Candidates, role: str) -> np.ndarray:
    lengths = [
        sum(len(message["content"]) for message in messages if message["role"] == role)
        for messages in candidates.values("messages")
    ]
    return np.array(lengths, dtype=np.float64)


def direct_score(candidates: Candidates) -> Trace:
    """Highest rating by an LLM, from a column (AlpaGasus, Chen et al. 2023; "direct scoring" in DEITA's tables)."""
    return top_rows(candidates.ids, candidates.numbers, candidates.budget)


def perplexity(candidates: Candidates) -> Trace:
    """Perplexity of the response under a pretrained model, from a column, the highest first unless ``order`` says else.

    DEITA's Table 2 takes it as a measure of complexity: a response that the model finds surprising counts as hard.
    """
    sign = 1.0 if candidates.order == "highest" else -1.0
    return top_rows(candidates.ids, sign * candidates.numbers, candidates.budget)


def ifd(candidates: Candidates) -> Trace:
    """Highest instruction-following difficulty below 1, from a column (Cherry, Li et al. 2023).

    IFD is the perplexity of the response given the instruction over that of the response alone. From 1 on the
    instruction does not help, which the paper takes as a sign that the two do not belong together; such
    rows are left out before (``usable.ifd_below_one``).
    """
    return top_rows(candidates.ids, candidates.numbers, candidates.budget)


def whole_pool(candidates: Candidates) -> Trace:
    """Every row, by id: what a selection is compared with."""
    return top_rows(candidates.ids, np.zeros(len(candidates.ids)), None)
