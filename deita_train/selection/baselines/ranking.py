"""Methods that rank every row by one number and keep the first. A smaller budget keeps a prefix of a larger one."""

from collections.abc import Sequence

import numpy as np

from deita_train.data.as_text import message_text
from deita_train.selection.baselines.pool_products import order_of_ids
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace, walk_order


def top_rows(ids: Sequence[str], scores: np.ndarray, budget: int | None) -> Trace:
    """Keep the `budget` best of N scores (all if None), without a diversity filter; ties by id.

    Args:
        ids: N unique row ids.
        scores: `[N]` float64, higher is better.
        budget: rows to keep at most, at least 1.

    Raises:
        UserError: a score is nan.
    """
    return trace_of(len(ids), walk_order(ids, scores)[:budget])


def trace_of(num_rows: int, kept: Sequence[int] | np.ndarray) -> Trace:
    """The trace of a method that keeps the rows at these positions, best first, and compares nothing."""
    trace = Trace.empty(num_rows)
    trace.selection_rank[kept] = np.arange(len(kept))
    return trace


def highest_score(candidates: Candidates, budget: int) -> Trace:
    """Highest evol score, complexity or quality, summed over the turns (DEITA, Liu et al. 2023, sections 2.2 to 2.5).

    By the evol score this is DEITA without its diversity filter.
    """
    return top_rows(candidates.ids, candidates.scores, budget)


def highest_number(candidates: Candidates, budget: int) -> Trace:
    """Highest number in a column: a rating by an LLM, or the instruction-following difficulty (IFD).

    Ratings: AlpaGasus (Chen et al. 2023); "direct scoring" in DEITA's tables. IFD (Cherry, Li et al. 2023) is the
    perplexity of the response given the instruction over that of the response alone (Superfiltering, Li et al. 2024),
    or the loss over the loss, as in Cherry's code. From 1 on the instruction does
    not help, which the paper takes as a sign that the two do not belong together; such rows are left out before.
    """
    return top_rows(candidates.ids, candidates.numbers, budget)


def perplexity(candidates: Candidates, budget: int) -> Trace:
    """Perplexity of the response under a pretrained model, from a column; the highest first unless `order` is "lowest".

    DEITA's Table 2 uses it as a measure of complexity: a response that surprises the model counts as hard.
    """
    sign = 1.0 if candidates.settings.order == "highest" else -1.0
    return top_rows(candidates.ids, sign * candidates.numbers, budget)


def random(candidates: Candidates, budget: int) -> Trace:
    """A seeded permutation of the rows sorted by id, so that the order of the input does not matter."""
    scores = np.empty(len(candidates.ids), dtype=np.float64)
    drawn = np.random.default_rng(candidates.settings.seed).permutation(len(scores))
    scores[order_of_ids(candidates.ids)] = drawn
    return top_rows(candidates.ids, scores, budget)


def longest_response(candidates: Candidates, budget: int) -> Trace:
    """Most characters over all assistant messages, calls and reasoning too (Zhao et al. 2024, "Long Is More")."""
    return top_rows(candidates.ids, characters(candidates, "assistant"), budget)


def longest_instruction(candidates: Candidates, budget: int) -> Trace:
    """Most characters over all user messages: the baseline "instruction length" of DEITA's Table 2."""
    return top_rows(candidates.ids, characters(candidates, "user"), budget)


def characters(candidates: Candidates, role: str) -> np.ndarray:
    """How many characters the messages of a role have in each row, `[N]` float64."""
    lengths = [
        sum(len(message_text(message)) for message in messages if message["role"] == role)
        for messages in candidates.values("messages")
    ]
    return np.array(lengths, dtype=np.float64)


def whole_pool(candidates: Candidates, budget: int) -> Trace:
    """Every row, by id, whatever the budget: what a selection is compared with."""
    return trace_of(len(candidates.ids), order_of_ids(candidates.ids))
